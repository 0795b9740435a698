// Values as Python writes them in messages.

#ifndef HOTSTART_WORDS_H
#define HOTSTART_WORDS_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hotstart {

std::string joined(const std::vector<std::string>& parts, const char* between);
std::string listed(const int64_t* numbers, int count);  // 1, 2
std::string in_tuple(const int64_t* numbers, int count);  // (1, 2), or (1,)
std::string quoted(std::string_view bytes);  // b'HOT', or with \x00
std::string cut(std::string_view text, size_t most);  // to its first characters
bool is_utf8(std::string_view text);
std::string shortened(std::string_view text);  // short and on one line, whoever wrote it
std::string hex(const uint8_t* bytes, size_t count);

}  // namespace hotstart

#endif
