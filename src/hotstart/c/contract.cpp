#include "contract.h"

#include <algorithm>
#include <cstdlib>

#include "torch.h"
#include "weights.h"
#include "words.h"

namespace hotstart {

// The largest factor of an axis, and the largest number beside it.
static constexpr int64_t LARGEST = INT64_C(1) << 31;

// --- reading ----------------------------------------------------------------------------------

static Interval interval_of(const Json& pair) {
  return {pair.at(0).integer(), pair.at(1).integer()};
}

static Axis axis_of(const Json& dim, const Json& served) {
  Axis axis{dim["name"].string(), served.string(), {}, 0};
  for (const Json& each : dim["ranges"].items())
    axis.intervals.push_back({each["lo"].integer(), each["hi"].integer()});
  for (const Json& size : dim["sizes"].items())
    axis.intervals.push_back({size.integer(), size.integer()});
  if (axis.intervals.empty()) throw Malformed("expected an axis that serves sizes");
  return axis;
}

Contract::Contract(const Json& records, const Json& wiring) {
  const std::vector<Json>& dims = records["axes"].items();
  for (size_t number = 0; number < dims.size(); ++number)
    axes_.push_back(axis_of(dims[number], wiring["axes"].at(number)));
  for (const Json& spec : records["tensors"].items()) read_argument(spec);
  for (const Json& slot : records["mutated_args"].items())
    arguments_[slot.integer(0, static_cast<int64_t>(arguments_.size()) - 1)].written = true;
  for (const Json& variant : wiring["variants"].items()) {
    Range range{variant["name"].string(), {}};
    for (const Json& pair : variant["intervals"].items())
      range.intervals.push_back(interval_of(pair));
    if (range.intervals.size() != axes_.size()) throw Malformed("a variant with other axes");
    ranges_.push_back(range);
  }
  for (const Argument& argument : arguments_)
    for (const Size& size : argument.sizes) {
      if (size.terms.size() != 1) continue;
      const size_t axis = static_cast<size_t>(size.terms[0].first);
      if (std::count(met_.begin(), met_.end(), axis) > 0) continue;
      met_.push_back(axis);
      axes_[axis].first = static_cast<int>(&argument - arguments_.data());
    }
  if (met_.size() != axes_.size()) throw Malformed("an axis that no argument has");
}

int32_t Contract::axis_named(std::string_view name) const {
  for (const Axis& axis : axes_)
    if (axis.name == name) return static_cast<int32_t>(&axis - axes_.data());
  throw Malformed("expected an axis, not " + cut(name, 80));
}

static Layout layout_named(std::string_view name) {
  if (name == "copied") return Layout::copied;
  if (name == "fixed") return Layout::fixed;
  if (name == "exact") return Layout::exact;
  throw Malformed("expected a layout");
}

Size Contract::size_of(const Json& record) const {
  if (record.kind() == Json::Kind::text) return {{{axis_named(record.text()), 1}}, 0};
  if (record.kind() == Json::Kind::integer) return {{}, record.integer(0, INT64_MAX)};
  Size made{{}, record["plus"].integer(-LARGEST, LARGEST)};
  for (const Json& term : record["terms"].items())
    made.terms.emplace_back(axis_named(term.at(0).text()), term.at(1).integer(1, LARGEST));
  if (made.terms.empty()) throw Malformed("expected a size that follows from axes");
  return made;
}

std::string Contract::written(const Size& size) const {
  std::vector<std::string> terms;
  for (const auto& [axis, factor] : size.terms)
    terms.push_back((factor == 1 ? "" : std::to_string(factor) + "*") + axes_[axis].name);
  if (terms.empty()) return std::to_string(size.plus);
  const std::string text = joined(terms, " + ");
  if (size.plus == 0) return text;
  return text + (size.plus < 0 ? " - " : " + ") + std::to_string(std::abs(size.plus));
}

void Contract::read_argument(const Json& spec) {
  Argument made{spec["path"].string(), "", dtype_named(spec["dtype"].text()), {}, {}, {}, {},
                layout_named(spec["layout"].text()), false};
  std::vector<std::string> sizes;
  for (const Json& record : spec["shape"].items()) {
    const Size size = size_of(record);
    made.shape.push_back(size.terms.empty() ? size.plus : -1);
    made.axes.push_back(size.is_plain() ? size.terms[0].first : -1);
    made.sizes.push_back(size);
    sizes.push_back(written(size));
  }
  const int64_t last = static_cast<int64_t>(made.shape.size()) - 1;
  for (const Json& dim : spec["dim_order"].items())
    made.order.push_back(static_cast<int32_t>(dim.integer(0, last)));
  std::vector<int32_t> sorted = made.order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t dim = 0; dim <= last; ++dim)
    if (sorted.size() != made.shape.size() || sorted[dim] != dim)
      throw Malformed("expected an order of all dimensions");
  made.text = "torch." + spec["dtype"].string() + " [" + joined(sizes, ", ") + "] on " +
              spec["device"].string();
  arguments_.push_back(made);
}

// --- checking ---------------------------------------------------------------------------------

static std::string described(const hotstart_tensor& given) {
  const Dtype* dtype = dtype_of(given.dtype);
  return (dtype == nullptr ? "dtype " + std::to_string(given.dtype)
                           : std::string("torch.") + dtype->name) +
         " [" + listed(given.shape, given.rank) + "] on cpu";
}

std::vector<Checked> Contract::check(const hotstart_tensor* given, int count,
                                     std::vector<int64_t>& sizes) const {
  const int wanted = static_cast<int>(arguments_.size());
  if (count > wanted)
    throw contract("positional arguments", std::to_string(count),
                   "at most " + std::to_string(wanted));
  sizes.assign(axes_.size(), -1);
  std::vector<Checked> found;
  for (int number = 0; number < wanted; ++number) {
    const Argument& argument = arguments_[number];
    if (number >= count || given == nullptr)
      throw contract(argument.name, "nothing", argument.text,
                     "pass it, or compile with an example without it");
    check_kind(argument, given[number]);
    check_shape(argument, given[number], sizes);
    found.push_back(check_layout(argument, given[number]));
  }
  check_sums(given, sizes);
  check_apart(given, found);
  return found;
}

Extent extent_of(const hotstart_tensor& tensor, const int64_t* strides) {
  const std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.rank);
  const std::vector<int64_t> steps(strides, strides + tensor.rank);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.data);
  const int64_t size = spanned(shape, steps, dtype_of(tensor.dtype)->size);
  return {begin, begin + static_cast<uintptr_t>(size)};
}

// Sees that nothing a call writes to is passed in two places.
void Contract::check_apart(const hotstart_tensor* given,
                           const std::vector<Checked>& checked) const {
  for (size_t slot = 0; slot < arguments_.size(); ++slot) {
    if (!arguments_[slot].written) continue;
    const Extent own = extent_of(given[slot], checked[slot].strides.data());
    for (size_t other = 0; other < arguments_.size(); ++other) {
      const Extent theirs = extent_of(given[other], checked[other].strides.data());
      if (other == slot || !own.meets(theirs)) continue;
      throw contract(arguments_[slot].name,
                     "a tensor that shares memory with " + arguments_[other].name,
                     "a tensor of its own, since the model writes to it", "pass a .clone()");
    }
  }
}

void Contract::check_kind(const Argument& wanted, const hotstart_tensor& given) const {
  if (given.rank < 0 || (given.rank > 0 && given.shape == nullptr))
    throw contract(wanted.name, "a tensor without a shape", wanted.text);
  for (int dim = 0; dim < given.rank; ++dim)
    if (given.shape[dim] < 0) throw contract(wanted.name, described(given), wanted.text);
  const size_t rank = wanted.shape.size();
  if (given.dtype != wanted.dtype) {
    std::string advice = std::string("convert it, as by .to(torch.") + dtype_of(wanted.dtype)->name;
    if (const Dtype* dtype = dtype_of(given.dtype))
      advice += std::string("), or compile with an example of torch.") + dtype->name;
    else
      advice += ")";
    throw contract(wanted.name, described(given), wanted.text, advice);
  }
  if (given.rank != static_cast<int>(rank))
    throw contract(wanted.name, described(given), wanted.text,
                   "pass " + std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions") +
                       ", or compile with an example of " + std::to_string(given.rank));
}

static std::string in_dimension(int64_t size, int dim) {
  return "size " + std::to_string(size) + " in dimension " + std::to_string(dim);
}

void Contract::check_shape(const Argument& wanted, const hotstart_tensor& given,
                           std::vector<int64_t>& sizes) const {
  for (int dim = 0; dim < given.rank; ++dim) {
    const int64_t size = given.shape[dim];
    if (wanted.sizes[dim].terms.size() == 1)
      check_size(wanted, dim, size, sizes);
    else if (wanted.sizes[dim].terms.empty() && size != wanted.shape[dim])
      throw contract(wanted.name, described(given), wanted.text,
                     "pass " + std::to_string(wanted.shape[dim]) + " in dimension " +
                         std::to_string(dim) + ", or declare a Dim for it in dynamic_shapes");
  }
}

void Contract::check_size(const Argument& wanted, int dim, int64_t size,
                          std::vector<int64_t>& sizes) const {
  const Size& own = wanted.sizes[dim];
  const auto [number, factor] = own.terms[0];
  if (sizes[number] >= 0) return check_agrees(wanted, dim, size, sizes);
  const int64_t rest = size - own.plus;  // of a size of 0 or more, so it is not too small
  if (own.plus > size || rest % factor != 0)
    throw contract(wanted.name, in_dimension(size, dim),
                   written(own) + " there, for a whole number '" + axes_[number].name + "'",
                   "pad or crop the input");
  sizes[number] = rest / factor;
  int64_t low = INT64_MAX, high = INT64_MIN;
  for (const Range& range : ranges_) {
    low = std::min(low, range.intervals[number].low);
    high = std::max(high, range.intervals[number].high);
  }
  if (sizes[number] < low || sizes[number] > high) throw not_served(sizes);
}

// Sees that a dimension has the size that follows from axes, all of which are known.
void Contract::check_agrees(const Argument& wanted, int dim, int64_t size,
                            const std::vector<int64_t>& sizes) const {
  const Size& own = wanted.sizes[dim];
  int64_t takes = own.plus;
  bool too_large = false;
  std::vector<std::string> known;
  for (const auto& [number, factor] : own.terms) {
    int64_t part = 0;
    too_large |= __builtin_mul_overflow(sizes[number], factor, &part) ||
                 __builtin_add_overflow(takes, part, &takes);
    known.push_back("axis '" + axes_[number].name + "' of " + std::to_string(sizes[number]) +
                    " in " + arguments_[axes_[number].first].name);
  }
  if (!too_large && size == takes) return;
  const std::string there = too_large ? "a size" : "size " + std::to_string(takes);
  if (!own.is_plain())
    throw contract(wanted.name, in_dimension(size, dim),
                   there + " there, " + written(own) + " for " + joined(known, " and "),
                   "pass this size, or declare another Dim there");
  const Axis& axis = axes_[own.terms[0].first];
  throw contract(wanted.name, in_dimension(size, dim),
                 there + " there, the size of axis '" + axis.name + "' in " +
                     arguments_[axis.first].name,
                 "pass equal sizes, or declare another Dim there");
}

// Sees that dimensions have the sizes that follow from several axes.
void Contract::check_sums(const hotstart_tensor* given, const std::vector<int64_t>& sizes) const {
  for (size_t number = 0; number < arguments_.size(); ++number)
    for (size_t dim = 0; dim < arguments_[number].sizes.size(); ++dim)
      if (arguments_[number].sizes[dim].terms.size() > 1)
        check_agrees(arguments_[number], static_cast<int>(dim), given[number].shape[dim], sizes);
}

// Says the size that the first dimension has which follows from an axis; empty if it is it.
std::string Contract::of_first(size_t axis, int64_t of) const {
  for (const Size& size : arguments_[axes_[axis].first].sizes) {
    if (size.terms.size() != 1 || size.terms[0].first != static_cast<int32_t>(axis)) continue;
    if (size.is_plain()) return "";
    return ", " + written(size) + " of " + std::to_string(size.terms[0].second * of + size.plus);
  }
  return "";
}

Failure Contract::not_served(const std::vector<int64_t>& sizes) const {
  std::vector<std::string> known, names;
  for (size_t number = 0; number < axes_.size(); ++number) {
    const Axis& axis = axes_[number];
    const int64_t size = sizes[number];
    const auto has = [size](const Interval& each) { return each.has(size); };
    const bool served = std::any_of(axis.intervals.begin(), axis.intervals.end(), has);
    if (size != -1 && !served)
      return contract(arguments_[axis.first].name,
                      "axis '" + axis.name + "' of size " + std::to_string(size) +
                          of_first(number, size),
                      axis.served,
                      "declare a larger Dim, or pad or split the input");
  }
  for (size_t number : met_)
    if (sizes[number] != -1)
      known.push_back("'" + axes_[number].name + "': " + std::to_string(sizes[number]));
  for (const Range& range : ranges_) names.push_back(range.name);
  return contract("sizes", "{" + joined(known, ", ") + "}", joined(names, " or "),
                  "pad the input, or declare these sizes");
}

void Contract::check_beside(const std::vector<Placed>& weights, const hotstart_tensor* given,
                            const std::vector<Checked>& checked) const {
  for (size_t slot = 0; slot < arguments_.size(); ++slot) {
    const Extent own = extent_of(given[slot], checked[slot].strides.data());
    for (const Placed& weight : weights) {
      if (!(weight.written || arguments_[slot].written) || !own.meets(weight.extent)) continue;
      throw contract(arguments_[slot].name,
                     "a tensor that shares memory with the model's " + weight.name,
                     "a tensor of its own, since the model writes to one of them",
                     "pass a .clone()");
    }
  }
}

// --- layouts ----------------------------------------------------------------------------------

// Strides without gaps whose dimensions lie in memory in an order; false where there are too many
// elements to be counted.
static bool dense(const hotstart_tensor& given, const std::vector<int32_t>& order,
                  std::vector<int64_t>& strides) {
  strides.assign(static_cast<size_t>(given.rank), 0);
  int64_t step = 1;
  for (int place = given.rank - 1; place >= 0; --place) {
    const int32_t dim = order[static_cast<size_t>(place)];
    strides[static_cast<size_t>(dim)] = step;
    if (__builtin_mul_overflow(step, std::max<int64_t>(given.shape[dim], 1), &step)) return false;
  }
  return true;
}

// Where a tensor of a rank has its dimensions, the outermost first, if it is a dense one.
static std::vector<int32_t> outermost_first(int rank) {
  std::vector<int32_t> order(static_cast<size_t>(rank));
  for (int dim = 0; dim < rank; ++dim) order[static_cast<size_t>(dim)] = dim;
  return order;
}

// Sees that memory can hold numbers that are read.
static void check_memory(const Argument& wanted, const hotstart_tensor& given,
                         const std::vector<int64_t>& strides) {
  for (int64_t step : strides)
    if (step < 0)
      throw contract(wanted.name, "strides " + in_tuple(strides.data(), given.rank),
                     "strides of zero or more", "copy it");
  if (given.data == nullptr) throw contract(wanted.name, "a null pointer", "a pointer to numbers");
  const uintptr_t address = reinterpret_cast<uintptr_t>(given.data);
  const int32_t part = std::min(dtype_of(given.dtype)->size, 8);
  if (address % static_cast<uintptr_t>(part) != 0)
    throw contract(wanted.name, "memory at " + std::to_string(address),
                   "memory at a multiple of " + std::to_string(part) + " bytes");
}

// Sees that no two elements that a call writes to share memory; refuses some that interleave, too.
static void check_elements_apart(const Argument& wanted, const hotstart_tensor& given,
                                 const std::vector<int64_t>& strides) {
  std::vector<std::pair<int64_t, int64_t>> steps;
  for (size_t dim = 0; dim < strides.size(); ++dim)
    if (given.shape[dim] > 1) steps.emplace_back(strides[dim], given.shape[dim]);
  std::sort(steps.begin(), steps.end());
  int64_t past = 1;
  for (const auto& [step, size] : steps) {
    if (step < past)
      throw contract(wanted.name,
                     "a tensor whose elements share memory, strides " +
                         in_tuple(strides.data(), given.rank),
                     "one whose elements are apart, since the model writes to it",
                     "pass a .clone()");
    past += (size - 1) * step;
  }
}

Checked Contract::check_layout(const Argument& wanted, const hotstart_tensor& given) const {
  std::vector<int64_t> strides, compiled;
  if (!dense(given, wanted.order, compiled))
    throw contract(wanted.name, described(given), "fewer elements");
  if (given.strides != nullptr)
    strides.assign(given.strides, given.strides + given.rank);
  else
    dense(given, outermost_first(given.rank), strides);
  bool empty = false, same = true;
  for (size_t dim = 0; dim < strides.size(); ++dim) {
    empty |= given.shape[dim] == 0;
    same &= given.shape[dim] == 1 || strides[dim] == compiled[dim];
  }
  if (!empty) check_memory(wanted, given, strides);
  if (strides == compiled) return {strides, strides, false};
  if (wanted.written && !empty) check_elements_apart(wanted, given, strides);
  if (wanted.layout == Layout::copied)
    return {strides, empty ? strides : compiled, !empty && !same};
  if (wanted.layout == Layout::fixed && (empty || same)) return {strides, strides, false};
  throw contract(wanted.name, "strides " + in_tuple(strides.data(), given.rank),
                 "strides " + in_tuple(compiled.data(), given.rank) +
                     ", since what forward does depends on them",
                 "pass it laid out so, or compile with an example of this layout");
}

}  // namespace hotstart
