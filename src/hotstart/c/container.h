// The `.hot` file as bytes: what is in it, and whether it is what was written.
// The format is described in Python's `hotstart.artifact.container`.

#ifndef HOTSTART_CONTAINER_H
#define HOTSTART_CONTAINER_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "file.h"
#include "json.h"
#include "target_index.h"

namespace hotstart {

struct Blob {
  const uint8_t* data;
  size_t size;
  std::string sha256;
};

class Container {
 public:
  // Of a file with several targets, only what it has for the best that a processor runs is read.
  Container(const std::string& file, const std::vector<std::string>& instructions);

  const std::string& file() const { return file_; }
  const Json& manifest() const { return manifest_->root(); }
  const std::vector<Target>& targets() const { return targets_; }  // where there are several

  // The bytes of a blob, after comparing them with their digest.
  Blob verified(const std::string& name) const;

 private:
  struct Row {
    size_t offset, size;
    std::string sha256;
  };
  void read_header(const std::vector<uint8_t>& header, size_t there);
  void read_target(OpenFile& source, const std::vector<std::string>& instructions);
  void read_manifest();
  void read_rows();

  std::string file_;
  uint64_t format_ = 0;
  size_t manifest_bytes_ = 0, size_ = 0, area_ = 0;
  std::string digest_;
  std::vector<uint8_t> rest_;  // all that comes after the header
  std::unique_ptr<JsonDocument> manifest_;
  std::map<std::string, Row> rows_;
  std::vector<Target> targets_;
};

uint64_t little_endian(const uint8_t* bytes, int count);

}  // namespace hotstart

#endif
