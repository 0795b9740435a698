// Tensors that the file of a program brings: constants, and what checkpoints leave out.

#ifndef HOTSTART_BROUGHT_H
#define HOTSTART_BROUGHT_H

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "container.h"
#include "torch.h"

namespace hotstart {

class Brought {
 public:
  // Refers to the container, which has to live as long as tensors are made.
  explicit Brought(const Container& container) : container_(container) {}

  // The names of tensors in the file: one that no module keeps, one that no checkpoint has, and a
  // constant of a unit. Empty if there is none.
  std::string captured(int64_t slot) const;
  std::string left_out(int64_t slot) const;
  std::string constant(std::string_view unit, std::string_view name) const;

  // Makes a tensor over memory of its own, which is added to what the program keeps.
  Owned tensor(const Torch& torch, const std::string& name);

  using Memory = std::unique_ptr<uint8_t, void (*)(void*)>;
  std::vector<Memory> release() { return std::move(memory_); }

 private:
  void read_places();
  uint8_t* copied(const std::string& name, size_t size);

  const Container& container_;
  Blob blob_{nullptr, 0, ""};
  std::map<std::string, std::pair<size_t, size_t>> places_;
  std::map<std::string, uint8_t*> copies_;
  std::vector<Memory> memory_;
};

}  // namespace hotstart

#endif
