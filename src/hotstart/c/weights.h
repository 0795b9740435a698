// A file of prepared weights, mapped. The format is described in Python's
// `hotstart.artifact.weights_file`.

#ifndef HOTSTART_WEIGHTS_H
#define HOTSTART_WEIGHTS_H

#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "file.h"
#include "fit.h"
#include "json.h"
#include "torch.h"

namespace hotstart {

class Weights {
 public:
  // Reads and checks header and table.
  explicit Weights(const std::string& file);

  const std::string& file() const { return file_; }

  // Compares what the weights were prepared for with a program's wiring and this process, and
  // begins to check the memory, beside what the caller goes on with.
  void require_fit(const Json& wiring, const Host& here, const std::string& target);

  // Sees that the memory is what was written.
  void require_whole();

  // The number of a weight by name; -1 if it is not in the file.
  int64_t number_of(const std::string& name) const;

  // The number of what a preparation made of some tensors, as its result of some number; -1 for
  // nothing.
  int64_t made(const std::string& preparation, const std::vector<int64_t>& of, size_t number) const;

  // Makes a tensor over the memory of one in the file.
  Owned tensor(const Torch& torch, int64_t number) const;

 private:
  struct Stored {
    hotstart_dtype dtype;
    std::vector<int64_t> shape, strides;
    int64_t place;   // in the memory; -1 for one that is not there
    int64_t layout;  // -1 for a plain one
  };
  void read_header();
  void read_table();
  void read_tensors(const Json& table);
  void read_made(const Json& table);
  Stored stored(const Json& row, const std::vector<std::pair<int64_t, int64_t>>& stretches) const;
  std::string sum() const;
  Failure damaged(const std::string& part, const std::string& expected,
                  const std::string& found) const;

  using Key = std::pair<std::string, std::vector<int64_t>>;
  std::string file_;
  Mapping mapping_;
  size_t table_bytes_ = 0, begin_ = 0, memory_ = 0;
  std::unique_ptr<JsonDocument> table_;
  std::vector<Stored> tensors_;
  std::vector<std::string> layouts_;
  std::map<std::string, int64_t> names_;
  std::map<Key, std::vector<int64_t>> made_;
  std::string sums_;
  std::future<std::string> checking_;  // waits where it ends, and is the first to end
};

// The bytes from the first to the last element of a tensor; INT64_MAX where they cannot be counted.
int64_t spanned(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                int64_t size);

}  // namespace hotstart

#endif
