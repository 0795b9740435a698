// A program, opened: its native code, what that is bound to, and what its calls take and give.

#ifndef HOTSTART_PROGRAM_H
#define HOTSTART_PROGRAM_H

#include <memory>
#include <string>
#include <vector>

#include "container.h"
#include "contract.h"
#include "hotstart.h"
#include "interface.h"
#include "torch.h"
#include "weights.h"
#include "wired.h"

namespace hotstart {

// A result: made by the function, an argument as it was passed, or a tensor of the wiring.
enum class From { made, argument, bound };

struct Result {
  From from;
  int number;
};

struct Variant {
  std::vector<Interval> intervals;  // of each axis
  int number;                       // in the native program
  const hotstart_bound* function;
  std::vector<int> arguments;  // tensors of the call; one as it was passed counts down from -1
  std::vector<Result> results;
};

// A way to call a program, and the same as the caller sees it.
struct Call {
  Contract contract;
  std::vector<Variant> variants;
  std::string name;
  std::vector<std::string> results;

  std::vector<hotstart_argument> shown_arguments;
  std::vector<hotstart_axis> shown_axes;
  std::vector<const char*> shown_results;
  hotstart_call_info info;

  void show();
};

class Program {
 public:
  Program(const std::string& file, const std::string& weights);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::vector<Call>& calls() const { return calls_; }
  const Torch& torch() const { return *torch_; }
  const std::string& target() const { return target_; }  // empty if the file does not say

  // The results of a call, in order.
  std::vector<Owned> run(const Call& call, const hotstart_tensor* given, int count) const;

 private:
  const Json& wiring_of(const Container& container) const;
  void open_native(const Container& container, const Json& native);
  void read_calls(const Json& records, const Json& wiring);
  Variant read_variant(const Json& wiring, const Call& call, int number) const;

  void find_weights(const Json& specs, const Json& tensors);
  const Variant& variant_for(const Call& call, const std::vector<int64_t>& sizes) const;
  Owned over(const hotstart_tensor& tensor, const std::vector<int64_t>& strides) const;
  Owned laid_out(const hotstart_tensor& tensor, const Checked& checked) const;
  Owned again(const Owned& tensor) const;
  std::vector<Owned> called(const Variant& variant, const std::vector<int64_t>& sizes,
                            std::vector<Owned>& arguments) const;

  std::string target_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Torch> torch_;
  const hotstart_native* native_ = nullptr;
  Wired wired_;
  std::vector<Placed> weights_in_memory_;
  std::vector<Call> calls_;
};

}  // namespace hotstart

#endif
