#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <utility>

#include "failure.h"

namespace hotstart {

static Failure unreadable(const std::string& name, int number) {
  return Failure(HOTSTART_ERROR, name + ": expected a file that can be read, found: " +
                                     std::strerror(number) +
                                     ". Check the path and its permissions.");
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(begin_, other.begin_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (begin_ != nullptr) munmap(begin_, size_);
}

// Opening a pipe or a device must not wait for its other end, nor make it our terminal.
OpenFile::OpenFile(const std::string& name)
    : name_(name), descriptor_(open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {
  if (descriptor_ < 0) throw unreadable(name, errno);
  struct stat info;
  const int failed = fstat(descriptor_, &info) == 0 ? 0 : errno;
  if (failed == 0 && S_ISREG(info.st_mode)) {
    size_ = static_cast<size_t>(info.st_size);
    return;
  }
  close(descriptor_);
  if (failed != 0) throw unreadable(name, failed);
  throw error(name, "a regular file", S_ISDIR(info.st_mode) ? "a folder" : "a pipe or a device",
              "Check the path; copy what a pipe gives into a file and read that.");
}

OpenFile::~OpenFile() { close(descriptor_); }

std::vector<uint8_t> OpenFile::memory(size_t size) const {
  try {
    return std::vector<uint8_t>(size);
  } catch (const std::exception&) {  // or there cannot be so much
    throw Failure(HOTSTART_MEMORY, error(name_, std::to_string(size) +
                                             " bytes of memory to read it into", "less",
                                         "Load it where there is more memory, if it is what it "
                                         "should be.").what());
  }
}

void OpenFile::read_at(size_t offset, uint8_t* into, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t count =
        pread(descriptor_, into + done, size - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw unreadable(name_, errno);
    if (count == 0)
      throw corrupt(name_, "size", std::to_string(size - done) + " more bytes",
                    "the end of the file");
    done += static_cast<size_t>(count);
  }
}

std::vector<uint8_t> OpenFile::take(size_t size) {
  std::vector<uint8_t> data = memory(size);
  read_at(next_, data.data(), size);
  next_ += size;
  return data;
}

std::vector<uint8_t> OpenFile::gather(const std::vector<FileRange>& ranges) {
  size_t size = 0, end = 0;
  for (const FileRange& each : ranges) size += each.size;
  std::vector<uint8_t> data = memory(size);
  for (const FileRange& each : ranges) {
    read_at(each.offset, data.data() + end, each.size);
    end += each.size;
  }
  return data;
}

Mapping OpenFile::mapped() {
  if (size_ == 0) return Mapping();
  void* begin = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor_, 0);
  if (begin == MAP_FAILED) throw unreadable(name_, errno);
  return Mapping(static_cast<uint8_t*>(begin), size_);
}

std::string text_of(const std::string& name) {
  std::ifstream file(name);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

}  // namespace hotstart
