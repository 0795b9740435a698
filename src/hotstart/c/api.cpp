// The functions of hotstart.h. No exception leaves them.

#include <cstring>
#include <memory>
#include <new>

#include "failure.h"
#include "hotstart.h"
#include "program.h"
#include "torch.h"

struct hotstart_program {
  std::shared_ptr<const hotstart::Program> program;
};

namespace hotstart {

// Results with the tensors that they show. They keep the program, whose memory they may show.
struct Results : hotstart_results {
  std::shared_ptr<const Program> program;
  std::vector<Owned> owned;
  std::vector<hotstart_tensor> shown;
};

static std::string& last_error() {
  static thread_local std::string text;
  return text;
}

static hotstart_status failed(hotstart_status status, const char* text) noexcept {
  try {
    last_error() = text;
  } catch (...) {
    last_error().clear();
  }
  return status;
}

// Runs something, and says how it failed.
template <typename Action>
static hotstart_status guarded(Action action) noexcept {
  try {
    action();
    return HOTSTART_OK;
  } catch (const Failure& failure) {
    return failed(failure.status(), failure.what());
  } catch (const std::bad_alloc&) {
    return failed(HOTSTART_MEMORY, "memory: expected enough, found too little");
  } catch (const std::exception& error) {
    return failed(HOTSTART_ERROR, error.what());
  } catch (...) {
    return failed(HOTSTART_ERROR, "an exception that is not known");
  }
}

static void require(const void* pointer, const char* name) {
  if (pointer == nullptr) throw contract(name, "a null pointer", "a pointer");
}

static const Call& call_of(const hotstart_program* program, int32_t number) {
  require(program, "program");
  const std::vector<Call>& calls = program->program->calls();
  if (number < 0 || number >= static_cast<int32_t>(calls.size()))
    throw contract("call", std::to_string(number),
                   "a number below " + std::to_string(calls.size()));
  return calls[static_cast<size_t>(number)];
}

}  // namespace hotstart

using namespace hotstart;

hotstart_status hotstart_open(const char* file, const char* weights, hotstart_program** program) {
  if (program != nullptr) *program = nullptr;
  return guarded([&] {
    require(file, "file");
    require(weights, "weights");
    require(program, "program");
    *program = new hotstart_program{std::make_shared<const Program>(file, weights)};
  });
}

void hotstart_close(hotstart_program* program) { delete program; }

const char* hotstart_target(const hotstart_program* program) {
  return program == nullptr ? "" : program->program->target().c_str();
}

int32_t hotstart_call_count(const hotstart_program* program) {
  return program == nullptr ? 0 : static_cast<int32_t>(program->program->calls().size());
}

const hotstart_call_info* hotstart_describe(const hotstart_program* program, int32_t call) {
  const hotstart_call_info* found = nullptr;
  guarded([&] { found = &call_of(program, call).info; });
  return found;
}

hotstart_status hotstart_call(
    const hotstart_program* program, int32_t call, const hotstart_tensor* arguments, int32_t count,
    hotstart_results** results) {
  if (results != nullptr) *results = nullptr;
  return guarded([&] {
    require(results, "results");
    const Call& called = call_of(program, call);
    auto made = std::make_unique<Results>();
    made->program = program->program;
    made->owned = program->program->run(called, arguments, count);
    for (const Owned& each : made->owned)
      made->shown.push_back(program->program->torch().described(each.get()));
    made->count = static_cast<int32_t>(made->shown.size());
    made->tensors = made->shown.data();
    *results = made.release();
  });
}

void hotstart_free(hotstart_results* results) { delete static_cast<Results*>(results); }

const char* hotstart_last_error(void) { return last_error().c_str(); }

const char* hotstart_dtype_name(int32_t dtype) {
  const Dtype* found = dtype_of(dtype);
  return found == nullptr ? nullptr : found->name;
}

int32_t hotstart_dtype_size(int32_t dtype) {
  const Dtype* found = dtype_of(dtype);
  return found == nullptr ? 0 : found->size;
}

const char* hotstart_version(void) { return HOTSTART_VERSION; }
