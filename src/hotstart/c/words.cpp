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

std::string shortened(std::string_view text) {
  const std::string cut(text.size() <= 80 ? text : text.substr(0, 77));
  std::string shown;
  for (unsigned char byte : cut)
    shown += byte < 32 || byte == 127 ? escaped(byte) : std::string(1, static_cast<char>(byte));
  return text.size() <= 80 ? shown : shown + "...";
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
