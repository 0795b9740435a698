// SHA-256 (FIPS 180-4).

#ifndef HOTSTART_SHA256_H
#define HOTSTART_SHA256_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace hotstart {

using Digest = std::array<uint8_t, 32>;

Digest sha256(const void* data, size_t size);
std::string sha256_in_hex(const void* data, size_t size);

}  // namespace hotstart

#endif
