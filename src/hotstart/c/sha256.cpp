#include "sha256.h"

#include <cstring>

#include "words.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace hotstart {

alignas(16) static const uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t(bytes[0]) << 24 | uint32_t(bytes[1]) << 16 | uint32_t(bytes[2]) << 8 | bytes[3];
}

static void add_blocks_plainly(uint32_t* state, const uint8_t* data, size_t blocks) {
  for (; blocks > 0; --blocks, data += 64) {
    uint32_t words[64], v[8];
    for (int n = 0; n < 16; ++n) words[n] = big_endian(data + 4 * n);
    for (int n = 16; n < 64; ++n) {
      const uint32_t one = words[n - 15], other = words[n - 2];
      words[n] = words[n - 16] + (turned(one, 7) ^ turned(one, 18) ^ one >> 3) + words[n - 7] +
                 (turned(other, 17) ^ turned(other, 19) ^ other >> 10);
    }
    std::memcpy(v, state, sizeof v);
    for (int n = 0; n < 64; ++n) {
      const uint32_t first = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)) +
                             ((v[4] & v[5]) ^ (~v[4] & v[6])) + kRounds[n] + words[n];
      const uint32_t second = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)) +
                              ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      std::memmove(v + 1, v, 7 * sizeof *v);
      v[4] += first;
      v[0] = first + second;
    }
    for (int n = 0; n < 8; ++n) state[n] += v[n];
  }
}

#if defined(__x86_64__)

static bool has_instructions() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 29)) return false;  // SHA
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_1) && (c & bit_SSSE3);
}

// The same by the processor's instructions, which keep the state in two registers, as ABEF and
// CDGH. Four rounds at a time; the words of later rounds are made of those of four groups before.
__attribute__((target("sha,sse4.1,ssse3"))) static void add_blocks_by_instructions(
    uint32_t* state, const uint8_t* data, size_t blocks) {
  const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
  const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; blocks > 0; --blocks, data += 64) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i words[4];
    for (int n = 0; n < 16; ++n) {
      __m128i& word = words[n % 4];
      if (n < 4) {
        const __m128i* place = reinterpret_cast<const __m128i*>(data + 16 * n);
        word = _mm_shuffle_epi8(_mm_loadu_si128(place), order);
      } else {
        const __m128i last = words[(n + 3) % 4], one = words[(n + 1) % 4], two = words[(n + 2) % 4];
        const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(word, one),
                                          _mm_alignr_epi8(last, two, 4));
        word = _mm_sha256msg2_epu32(sum, last);
      }
      const __m128i* rounds = reinterpret_cast<const __m128i*>(kRounds + 4 * n);
      const __m128i added = _mm_add_epi32(word, _mm_load_si128(rounds));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, added);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(added, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static void add_blocks(uint32_t* state, const uint8_t* data, size_t blocks) {
  static const bool fast = has_instructions();
  (fast ? add_blocks_by_instructions : add_blocks_plainly)(state, data, blocks);
}

#else

static void add_blocks(uint32_t* state, const uint8_t* data, size_t blocks) {
  add_blocks_plainly(state, data, blocks);
}

#endif

Digest sha256(const void* data, size_t size) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  const size_t whole = size / 64, left = size % 64;
  if (whole > 0) add_blocks(state, bytes, whole);
  uint8_t last[128] = {};
  if (left > 0) std::memcpy(last, bytes + 64 * whole, left);
  last[left] = 0x80;
  const size_t blocks = left < 56 ? 1 : 2;
  const uint64_t bits = uint64_t(size) * 8;
  for (int n = 0; n < 8; ++n) last[64 * blocks - 1 - n] = static_cast<uint8_t>(bits >> 8 * n);
  add_blocks(state, last, blocks);
  Digest digest;
  for (int n = 0; n < 32; ++n) digest[n] = static_cast<uint8_t>(state[n / 4] >> (24 - 8 * (n % 4)));
  return digest;
}

std::string sha256_in_hex(const void* data, size_t size) {
  const Digest digest = sha256(data, size);
  return hex(digest.data(), digest.size());
}

}  // namespace hotstart
