#include "program.h"

#include <algorithm>

#include "failure.h"
#include "fit.h"
#include "libraries.h"
#include "words.h"

namespace hotstart {

// --- opening ----------------------------------------------------------------------------------

// The version of hotstart that wrote a file; empty if it does not say.
static std::string built_by(const Container& container) {
  try {
    return container.manifest()["fingerprint"]["hotstart"].string();
  } catch (const Malformed&) {
    return "";
  }
}

static Failure unreadable(const Container& container, const char* reason) {
  const std::string built = built_by(container);
  if (!built.empty() && built != hotstart_version())
    return incompatible(container.file(),
                        {{"records", "those of hotstart " + built,
                          "those of hotstart " + std::string(hotstart_version()) +
                              ", which cannot read them: " + reason}});
  return corrupt(container.file(), "manifest", "what hotstart writes",
                 std::string("this: ") + reason);
}

// The parts of a fingerprint that this process does not fit; of every target what it lacks for it.
static std::vector<Difference> misfits(const Container& container, const Host& here) {
  std::vector<Difference> found;
  for (const Difference& each : program_misfits(container.manifest()["fingerprint"], here)) {
    const auto lacking = target_misfits(container.targets(), here.instructions);
    if (each.part == "instructions" && !lacking.empty() &&
        lacking.size() == container.targets().size())
      found.insert(found.end(), lacking.begin(), lacking.end());
    else
      found.push_back(each);
  }
  return found;
}

// Everything is checked before it is used: the file as a whole, where it fits, what is executed of
// it, and the weights, whose memory is read while libraries are opened.
Program::Program(const std::string& file, const std::string& weights) {
  const std::vector<std::string> instructions = processor_instructions();
  const Container container(file, instructions);
  try {
    const Json& fingerprint = container.manifest()["fingerprint"];
    const TorchPlace place = find_torch();
    const Host here = host(place, instructions);
    const std::vector<Difference> differences = misfits(container, here);
    if (!differences.empty()) throw incompatible(file, differences);
    if (const Json* target = fingerprint.find("target")) target_ = target->string();
    const Json& wiring = wiring_of(container);
    weights_.reset(new Weights(weights));
    weights_->require_fit(wiring, here, target_);
    torch_.reset(new Torch(place));
    require_release(file, fingerprint, *torch_);
    open_native(container, container.manifest()["native"]);
    weights_->require_whole();
    wired_ = bind_all(container, wiring, *weights_, *torch_, *native_);
    find_weights(container.manifest()["requirements"]["weights"], wiring["tensors"]);
    read_calls(container.manifest()["calls"], wiring["calls"]);
  } catch (const Malformed& reason) {
    throw unreadable(container, reason.what());
  }
}

const Json& Program::wiring_of(const Container& container) const {
  const Json* native = container.manifest().find("native");
  const Json* wiring = native == nullptr ? nullptr : native->find("wiring");
  const char* const what = "a program that runs without Python";
  if (native == nullptr)
    throw error(container.file(), what, "one without native code",
                "Serve it with hotstart.load, or build it with Options(form='native'), which says "
                "why a variant has none.");
  if (wiring == nullptr)
    throw error(container.file(), what,
                "one of a version of hotstart that did not save what this takes",
                "Build it again, and save it again.");
  const std::string reason = (*wiring)["reason"].string();
  if (!reason.empty())
    throw error(container.file(), what, "that " + reason, "Serve it with hotstart.load.");
  return *wiring;
}

void Program::open_native(const Container& container, const Json& native) {
  const std::string& file = container.file();
  const auto blob_of = [&container](const Json& name) {
    return container.verified("kernel_" + name.string() + ".so");
  };
  std::vector<void*> kernels;
  for (const Json& name : native["kernels"].items())
    kernels.push_back(function_of(file, opened(file, blob_of(name)), "kernel"));
  native_ = &opened_program(file, blob_of(native["library"]), kernels);
}

// Where weights lie that functions are bound to.
void Program::find_weights(const Json& specs, const Json& tensors) {
  for (size_t number = 0; number < wired_.tensors.size(); ++number) {
    const Json& row = tensors.at(number);
    const Handle tensor = wired_.tensors[number].get();
    if (tensor == nullptr || row["type"].text() != "weight") continue;
    const Json& spec = specs.at(static_cast<size_t>(row["slot"].integer(0, INT32_MAX)));
    const hotstart_tensor shown = torch_->described(tensor);
    weights_in_memory_.push_back({extent_of(shown, shown.strides), spec["name"].string(),
                                  spec["mutated"].boolean()});
  }
}

// --- calls ------------------------------------------------------------------------------------

void Program::read_calls(const Json& records, const Json& wiring) {
  int number = 0;
  for (size_t place = 0; place < records.items().size(); ++place) {
    const Json &record = records.at(place), &wired = wiring.at(place);
    calls_.push_back({Contract(record["contract"], wired), {}, record["name"].string(), {}, {}, {},
                      {}, {}});
    Call& call = calls_.back();
    for (const Json& variant : wired["variants"].items()) {
      call.variants.push_back(read_variant(variant, call, number++));
      if (call.variants.size() > 1) continue;
      for (const Json& result : variant["results"].items())
        call.results.push_back(result.at(0).string());
    }
    if (call.variants.empty()) throw Malformed("a call without variants");
  }
  if (number != native_->variants) throw Malformed("another number of variants");
  for (Call& call : calls_) call.show();
}

static Result result_of(const Json& row, int made, int arguments, int bound) {
  const std::string_view kind = row.at(1).text();
  const From from = kind == "made"       ? From::made
                    : kind == "argument" ? From::argument
                    : kind == "bound"    ? From::bound
                                         : throw Malformed("a result of another kind");
  const int there = from == From::made ? made : from == From::argument ? arguments : bound;
  return {from, static_cast<int>(row.at(2).integer(0, there - 1))};
}

Variant Program::read_variant(const Json& wired, const Call& call, int number) const {
  Variant made{{}, number, nullptr, {}, {}};
  for (const Json& pair : wired["intervals"].items())
    made.intervals.push_back({pair.at(0).integer(), pair.at(1).integer()});
  const int64_t last = static_cast<int64_t>(wired_.functions.size()) - 1;
  made.function = wired_.functions.at(wired["function"].integer(0, last)).get();
  const hotstart_shape& shape = native_->shapes[native_->body_of(made.function)];
  const int there = static_cast<int>(call.contract.arguments().size());
  for (const Json& each : wired["arguments"].items())
    made.arguments.push_back(static_cast<int>(each.integer(-there, there - 1)));
  if (shape.sizes != static_cast<int>(call.contract.axes().size()) ||
      shape.args != static_cast<int>(made.arguments.size()))
    throw Malformed("a function that takes something else");
  const int bound = static_cast<int>(wired_.tensors.size());
  for (const Json& each : wired["results"].items())
    made.results.push_back(result_of(each, shape.results, there, bound));
  if (!call.variants.empty() && call.variants[0].results.size() != made.results.size())
    throw Malformed("variants with other results");
  return made;
}

// Sets what the caller sees, which refers to the rest.
void Call::show() {
  for (const Argument& each : contract.arguments())
    shown_arguments.push_back({each.name.c_str(), each.dtype,
                               static_cast<int32_t>(each.shape.size()), each.shape.data(),
                               each.axes.data(), each.written});
  for (const Axis& each : contract.axes()) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (const Interval& interval : each.intervals) {
      low = std::min(low, interval.low);
      high = std::max(high, interval.high);
    }
    shown_axes.push_back({each.name.c_str(), low, high, each.served.c_str()});
  }
  for (const std::string& each : results) shown_results.push_back(each.c_str());
  info = {name.c_str(),
          static_cast<int32_t>(shown_arguments.size()), shown_arguments.data(),
          static_cast<int32_t>(shown_axes.size()), shown_axes.data(),
          static_cast<int32_t>(shown_results.size()), shown_results.data()};
}

// --- running ----------------------------------------------------------------------------------

// The most specific variant that serves the sizes: those of single sizes come last.
const Variant& Program::variant_for(const Call& call, const std::vector<int64_t>& sizes) const {
  for (auto variant = call.variants.rbegin(); variant != call.variants.rend(); ++variant) {
    bool within = true;
    for (size_t axis = 0; axis < sizes.size(); ++axis)
      within &= variant->intervals[axis].has(sizes[axis]);
    if (within && native_->serves(variant->number, sizes.data())) return *variant;
  }
  throw call.contract.not_served(sizes);
}

std::vector<Owned> Program::called(const Variant& variant, const std::vector<int64_t>& sizes,
                                   std::vector<Owned>& arguments) const {
  std::vector<void*> given, made;
  for (Owned& each : arguments) given.push_back(each.release());
  made.resize(static_cast<size_t>(native_->shapes[native_->body_of(variant.function)].results));
  char failure[1000] = "";
  const int failed = native_->call(variant.function, sizes.data(), given.data(), made.data(),
                                   failure, sizeof failure);
  if (failed) throw Failure(HOTSTART_FAILED, failure);
  std::vector<Owned> results;
  for (void* each : made) results.emplace_back(torch_.get(), each);
  return results;
}

Owned Program::over(const hotstart_tensor& tensor, const std::vector<int64_t>& strides) const {
  return Owned(torch_.get(), torch_->over(tensor.data, tensor.shape, strides.data(), tensor.rank,
                                          tensor.dtype));
}

// A tensor as functions see it: in the compiled layout.
Owned Program::laid_out(const hotstart_tensor& tensor, const Checked& checked) const {
  if (!checked.is_copied) return over(tensor, checked.seen);
  const Owned passed = over(tensor, checked.strides);
  return Owned(torch_.get(), torch_->laid_out(passed.get(), tensor.shape, checked.seen.data(),
                                              tensor.rank, tensor.dtype));
}

Owned Program::again(const Owned& tensor) const {
  return Owned(torch_.get(), torch_->again(tensor.get()));
}

std::vector<Owned> Program::run(const Call& call, const hotstart_tensor* given, int count) const {
  std::vector<int64_t> sizes;
  const std::vector<Checked> checked = call.contract.check(given, count, sizes);
  const Variant& variant = variant_for(call, sizes);
  call.contract.check_beside(weights_in_memory_, given, checked);
  std::vector<Owned> arguments, copies;
  std::vector<int> copied;
  for (int number : variant.arguments) {
    const int slot = number < 0 ? -1 - number : number;
    const Checked& each = checked[slot];
    arguments.push_back(number < 0 ? over(given[slot], each.strides)
                                   : laid_out(given[slot], each));
    if (number < 0 || !each.is_copied || !call.contract.arguments()[slot].written) continue;
    copies.push_back(again(arguments.back()));
    copied.push_back(slot);
  }
  const std::vector<Owned> made = called(variant, sizes, arguments);
  for (size_t place = 0; place < copies.size(); ++place) {
    const int slot = copied[place];
    torch_->copy(over(given[slot], checked[slot].strides).get(), copies[place].get());
  }
  std::vector<Owned> results;
  for (const auto& [from, number] : variant.results) {
    if (from == From::argument) {
      results.push_back(over(given[number], checked[number].strides));
      continue;
    }
    const Owned& shown = from == From::made ? made[number] : wired_.tensors[number];
    results.emplace_back(torch_.get(), torch_->resolved(shown.get()));
  }
  return results;
}

}  // namespace hotstart
