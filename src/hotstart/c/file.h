// A regular file that is read once through one descriptor, or mapped.

#ifndef HOTSTART_FILE_H
#define HOTSTART_FILE_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hotstart {

// Memory that a file is mapped to, copy-on-write.
class Mapping {
 public:
  Mapping() = default;
  Mapping(uint8_t* begin, size_t size) : begin_(begin), size_(size) {}
  Mapping(Mapping&& other) noexcept { *this = static_cast<Mapping&&>(other); }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();
  uint8_t* begin() const { return begin_; }
  size_t size() const { return size_; }

 private:
  uint8_t* begin_ = nullptr;
  size_t size_ = 0;
};

struct FileRange {
  size_t offset, size;
};

class OpenFile {
 public:
  explicit OpenFile(const std::string& name);
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile();

  const std::string& name() const { return name_; }
  size_t size() const { return size_; }
  std::vector<uint8_t> take(size_t size);  // the next bytes
  // Ranges of the file, by offset and size, in one memory.
  std::vector<uint8_t> gather(const std::vector<FileRange>& ranges);
  Mapping mapped();

 private:
  std::vector<uint8_t> memory(size_t size) const;
  void read_at(size_t offset, uint8_t* into, size_t size);

  std::string name_;
  int descriptor_;
  size_t next_ = 0;  // where the next bytes are
  size_t size_ = 0;
};

// The text of a small file; empty if it cannot be read.
std::string text_of(const std::string& name);

}  // namespace hotstart

#endif
