#include "words.h"

#include <cstdio>

namespace hotstart {

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string text;
  for (const std::string& part : parts) text += (&part == parts.data() ? "" : between) + part;
  return text;
}

std::string listed(const int64_t* numbers, int count) {
  std::string text;
  for (int place = 0; place < count; ++place)
    text += (place == 0 ? "" : ", ") + std::to_string(numbers[place]);
  return text;
}

std::string in_tuple(const int64_t* numbers, int count) {
  return "(" + listed(numbers, count) + (count == 1 ? ",)" : ")");
}

static std::string escaped(unsigned char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "\\x%02x", byte);
  return text;
}

std::string quoted(std::string_view bytes) {
  std::string text = "b'";
  for (unsigned char byte : bytes) {
    if (byte == '\n')
      text += "\\n";
    else if (byte == '\r')
      text += "\\r";
    else if (byte == '\t')
      text += "\\t";
    else if (byte == '\\' || byte == '\'')
      text += std::string("\\") + static_cast<char>(byte);
    else
      text += byte < 32 || byte > 126 ? escaped(byte) : std::string(1, static_cast<char>(byte));
  }
  return text + "'";
}

static bool goes_on(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

std::string cut(std::string_view text, size_t most) {
  size_t end = 0;
  for (size_t count = 0; end < text.size() && count < most; ++count) {
    ++end;
    while (end < text.size() && goes_on(text[end])) ++end;
  }
  return std::string(text.substr(0, end));
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const unsigned char first = static_cast<unsigned char>(text[at]);
    const int more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || text.size() - at <= size_t(more))
      return false;
    uint32_t point = more == 0 ? first : first & (0x3f >> more);
    for (int n = 1; n <= more; ++n) {
      if (!goes_on(text[at + n])) return false;
      point = point << 6 | (static_cast<unsigned char>(text[at + n]) & 0x3f);
    }
    const bool too_long = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
    if (too_long || (point >= 0xd800 && point < 0xe000) || point > 0x10ffff) return false;
    at += size_t(more) + 1;
  }
  return true;
}

std::string shortened(std::string_view text) {
  const bool fits = cut(text, 80).size() == text.size();
  std::string shown;
  for (char letter : fits ? std::string(text) : cut(text, 77)) {
    const unsigned char byte = static_cast<unsigned char>(letter);
    shown += byte < 32 || byte == 127 ? escaped(byte) : std::string(1, letter);
  }
  return fits ? shown : shown + "...";
}

std::string hex(const uint8_t* bytes, size_t count) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * count);
  for (size_t place = 0; place < count; ++place) {
    text += digits[bytes[place] >> 4];
    text += digits[bytes[place] & 15];
  }
  return text;
}

}  // namespace hotstart
