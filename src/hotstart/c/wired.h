// What the functions of a program run on: tensors, and functions bound to them and to each other.

#ifndef HOTSTART_WIRED_H
#define HOTSTART_WIRED_H

#include <memory>
#include <vector>

#include "brought.h"
#include "container.h"
#include "interface.h"
#include "json.h"
#include "torch.h"
#include "weights.h"

namespace hotstart {

// A function with what it runs on, which is let go with it.
using Function = std::unique_ptr<hotstart_bound, void (*)(hotstart_bound*)>;

struct Wired {
  std::vector<Brought::Memory> memory;  // of tensors that the file brings
  std::vector<Owned> tensors;           // those that nothing is bound to are left out
  std::vector<Function> functions;      // each after those that it calls
};

// Binds everything that a program's wiring lists.
Wired bind_all(const Container& container, const Json& wiring, const Weights& weights,
               const Torch& torch, const hotstart_native& native);

}  // namespace hotstart

#endif
