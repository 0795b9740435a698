// What a call must satisfy, checked in the order and with the words of Python's checks.

#ifndef HOTSTART_CONTRACT_H
#define HOTSTART_CONTRACT_H

#include <string>
#include <utility>
#include <vector>

#include "failure.h"
#include "json.h"

namespace hotstart {

struct Interval {
  int64_t low, high;
  bool has(int64_t size) const { return low <= size && size <= high; }
};

enum class Layout { copied, fixed, exact };

struct Axis {
  std::string name, served;
  std::vector<Interval> intervals;  // all that it serves
  int first = 0;                    // the argument that has it first
};

// A size that follows from axes: multiples of them, added up with a number.
struct Size {
  std::vector<std::pair<int32_t, int64_t>> terms;  // the number of an axis, and its factor
  int64_t plus;
  bool is_plain() const { return terms.size() == 1 && terms[0].second == 1 && plus == 0; }
};

struct Argument {
  std::string name, text;  // text: such as `torch.int64 [batch, 3] on cpu`
  hotstart_dtype dtype;
  std::vector<int64_t> shape;  // -1 for what is not fixed
  std::vector<int32_t> axes;   // -1 for what is no axis
  std::vector<Size> sizes;     // of each dimension; a fixed one has no terms
  std::vector<int32_t> order;  // dimensions from the outermost to the innermost in memory
  Layout layout;
  bool written;  // by calls
};

struct Range {
  std::string name;  // of a variant
  std::vector<Interval> intervals;  // of each axis
};

// An argument that was checked: its strides, and those that functions see it with.
struct Checked {
  std::vector<int64_t> strides, seen;
  bool is_copied;  // into memory with the strides that functions see
};

// Bytes in memory.
struct Extent {
  uintptr_t begin, end;
  bool meets(const Extent& other) const {
    return begin < other.end && other.begin < end && begin < end && other.begin < other.end;
  }
};

Extent extent_of(const hotstart_tensor& tensor, const int64_t* strides);

// Where a weight lies.
struct Placed {
  Extent extent;
  std::string name;
  bool written;  // by calls
};

class Contract {
 public:
  // Reads records of a file, and the wiring of the same call.
  Contract(const Json& records, const Json& wiring);

  const std::vector<Argument>& arguments() const { return arguments_; }
  const std::vector<Axis>& axes() const { return axes_; }

  // Checks arguments; sets the size of each axis.
  std::vector<Checked> check(const hotstart_tensor* given, int count,
                             std::vector<int64_t>& sizes) const;

  // Sees that no argument lies where a weight does, if a call writes to one of them.
  void check_beside(const std::vector<Placed>& weights, const hotstart_tensor* given,
                    const std::vector<Checked>& checked) const;

  // Explains that no variant serves the sizes; those of axes that are not known are negative.
  Failure not_served(const std::vector<int64_t>& sizes) const;

 private:
  void read_argument(const Json& spec);
  int32_t axis_named(std::string_view name) const;
  void check_kind(const Argument& wanted, const hotstart_tensor& given) const;
  void check_shape(const Argument& wanted, const hotstart_tensor& given,
                   std::vector<int64_t>& sizes) const;
  void check_size(const Argument& wanted, int dim, int64_t size, std::vector<int64_t>& sizes) const;
  void check_agrees(const Argument& wanted, int dim, int64_t size,
                    const std::vector<int64_t>& sizes) const;
  void check_sums(const hotstart_tensor* given, const std::vector<int64_t>& sizes) const;
  Size size_of(const Json& record) const;
  std::string written(const Size& size) const;
  std::string of_first(size_t axis, int64_t of) const;
  void check_apart(const hotstart_tensor* given, const std::vector<Checked>& checked) const;
  Checked check_layout(const Argument& wanted, const hotstart_tensor& given) const;

  std::vector<Argument> arguments_;
  std::vector<Axis> axes_;
  std::vector<Range> ranges_;
  std::vector<size_t> met_;  // axes in the order in which arguments have them
};

}  // namespace hotstart

#endif
