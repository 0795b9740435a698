#include "brought.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "json.h"
#include "weights.h"

namespace hotstart {

static std::string or_none(const Json& name) { return name.is_null() ? "" : name.string(); }

std::string Brought::captured(int64_t slot) const {
  for (const Json& pair : container_.manifest()["captured"].items())
    if (pair.at(0).integer() == slot) return or_none(pair.at(1));
  return "";
}

std::string Brought::left_out(int64_t slot) const {
  const Json* rows = container_.manifest().find("left_out");
  if (rows == nullptr) return "";
  for (const Json& each : rows->items())
    if (each["slot"].integer() == slot) return or_none(each["tensor"]);
  return "";
}

std::string Brought::constant(std::string_view unit, std::string_view name) const {
  for (const Json& each : container_.manifest()["units"].items()) {
    if (each["key"].text() != unit) continue;
    for (const Json& pair : each["constants"].items())
      if (pair.at(0).text() == name) return or_none(pair.at(1));
  }
  return "";
}

// Reads where tensors are in the blob, which has the format of safetensors.
void Brought::read_places() {
  blob_ = container_.verified("tensors.safetensors");
  const uint64_t size = blob_.size < 8 ? UINT64_MAX : little_endian(blob_.data, 8);
  if (size > blob_.size - 8) throw Malformed("a blob of tensors that ends early");
  const JsonDocument header(
      std::string_view(reinterpret_cast<const char*>(blob_.data) + 8, size));
  const int64_t most = static_cast<int64_t>(blob_.size - 8 - size);
  for (const Json& entry : header.root().values()) {
    const int64_t begin = entry["data_offsets"].at(0).integer(0, most);
    const int64_t end = entry["data_offsets"].at(1).integer(begin, most);
    places_[std::string(entry.name())] = {8 + size + begin, end - begin};
  }
}

// The bytes of a tensor in memory that may be written to, and begins where vectors do.
uint8_t* Brought::copied(const std::string& name, size_t size) {
  if (places_.empty()) read_places();
  const auto place = places_.find(name);
  if (place == places_.end()) throw Malformed("a tensor that is not in the file: " + name);
  if (place->second.second != size)
    throw Malformed("a tensor of " + std::to_string(size) + " bytes has " +
                    std::to_string(place->second.second));
  uint8_t*& copy = copies_[name];
  if (copy != nullptr) return copy;
  const size_t room = std::max<size_t>((size + 63) / 64 * 64, 64);
  memory_.emplace_back(static_cast<uint8_t*>(std::aligned_alloc(64, room)), std::free);
  if (memory_.back() == nullptr) throw std::bad_alloc();
  if (size > 0) std::memcpy(memory_.back().get(), blob_.data + place->second.first, size);
  return copy = memory_.back().get();
}

Owned Brought::tensor(const Torch& torch, const std::string& name) {
  const Json& layout = container_.manifest()["tensors"][name];
  const hotstart_dtype dtype = dtype_named(layout["dtype"].text());
  const std::vector<int64_t> shape = numbers_of(layout["shape"]);
  const std::vector<int64_t> strides = numbers_of(layout["stride"]);
  if (shape.size() != strides.size()) throw Malformed("a shape with other strides");
  const size_t size = static_cast<size_t>(spanned(shape, strides, dtype_of(dtype)->size));
  uint8_t* data = copied(name, size);
  const int rank = static_cast<int>(shape.size());
  return Owned(&torch, torch.over(data, shape.data(), strides.data(), rank, dtype));
}

}  // namespace hotstart
