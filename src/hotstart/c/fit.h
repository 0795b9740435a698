// Where a file fits: versions and machine, part by part, compared with this process.

#ifndef HOTSTART_FIT_H
#define HOTSTART_FIT_H

#include <string>
#include <vector>

#include "failure.h"
#include "json.h"
#include "torch.h"

namespace hotstart {

// What decides in this process.
struct Host {
  std::string torch, torch_build, platform, libc;
  std::vector<std::string> instructions;  // of the processor, sorted
};

// The extensions of this processor's instruction set, sorted.
std::vector<std::string> processor_instructions();

Host host(const TorchPlace& place, const std::vector<std::string>& instructions);

// The parts of a program's fingerprint that this process does not fit.
std::vector<Difference> program_misfits(const Json& fingerprint, const Host& here);

// The same of prepared weights, which depend on vector instructions.
std::vector<Difference> weights_misfits(const Json& fingerprint, const Host& here);

// Sees that a library is of the version that it says it is.
void require_release(const std::string& file, const Json& fingerprint, const Torch& torch);

}  // namespace hotstart

#endif
