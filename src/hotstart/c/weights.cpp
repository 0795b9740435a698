#include "weights.h"

#include <algorithm>
#include <cstring>

#include "container.h"
#include "failure.h"
#include "sha256.h"
#include "words.h"

namespace hotstart {

static const size_t kWeightsHeader = 64, kPage = 4096;
static const char kWeightsMagic[] = "HOTWEIGH";
static const uint64_t kWeightsFormat = 1;
static const int64_t kMost = int64_t(1) << 62;
static const char kAgain[] =
    "Write it again with program.save_weights(), by a program that was loaded here with the "
    "original weights.";

static size_t up_to_page(size_t position) { return (position + kPage - 1) / kPage * kPage; }

// --- base64, in which JSON has bytes ----------------------------------------------------------

static std::string from_base64(std::string_view text) {
  static const std::string_view letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t word = 0;
  int bits = 0;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  for (char letter : text) {
    const size_t value = letters.find(letter);
    if (value == std::string_view::npos) throw Malformed("expected base64");
    word = word << 6 | static_cast<uint32_t>(value);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(word >> bits & 255);
  }
  return bytes;
}

// --- header and table -------------------------------------------------------------------------

Weights::Weights(const std::string& file) : file_(file) {
  OpenFile source(file);
  mapping_ = source.mapped();
  read_header();
  try {
    const char* text = reinterpret_cast<const char*>(mapping_.begin() + kWeightsHeader);
    table_.reset(new JsonDocument(std::string_view(text, table_bytes_)));
    read_table();
  } catch (const Malformed& reason) {
    throw damaged("table", "what hotstart writes", std::string("this: ") + reason.what());
  }
  if (begin_ + memory_ != mapping_.size())
    throw damaged("size", std::to_string(begin_ + memory_) + " bytes",
                  std::to_string(mapping_.size()));
}

Failure Weights::damaged(const std::string& part, const std::string& expected,
                         const std::string& found) const {
  return corrupt(file_, part, expected, found, kNoWeights);
}

void Weights::read_header() {
  const uint8_t* header = mapping_.begin();
  const size_t size = mapping_.size();
  const std::string_view start(reinterpret_cast<const char*>(header), std::min<size_t>(size, 8));
  if (start != kWeightsMagic)
    throw damaged("header", quoted(kWeightsMagic), start.empty() ? "an empty file" : quoted(start));
  if (size < kWeightsHeader) throw damaged("header", "64 bytes", std::to_string(size));
  const uint64_t format = little_endian(header + 8, 4), reserved = little_endian(header + 12, 4);
  if (format != kWeightsFormat)
    throw incompatible(file_, {{"format", "1", std::to_string(format)}}, kAgain);
  if (reserved != 0)
    throw damaged("header", "zero in the reserved field", std::to_string(reserved));
  const uint64_t whole = little_endian(header + 16, 8);
  if (whole != size)
    throw damaged("size", std::to_string(whole) + " bytes", std::to_string(size));
  const uint64_t table = little_endian(header + 24, 8);
  if (table > size || up_to_page(kWeightsHeader + table) > size)
    throw damaged("size", "room for a table of " + std::to_string(table) + " bytes",
                  std::to_string(size));
  table_bytes_ = table;
  begin_ = up_to_page(kWeightsHeader + table);
  const uint8_t* text = header + kWeightsHeader;
  const std::string expected = hex(header + 32, 32), found = sha256_in_hex(text, table);
  const auto is_set = [](uint8_t byte) { return byte != 0; };
  if (expected != found || std::any_of(text + table, header + begin_, is_set))
    throw damaged("table", "SHA-256 " + expected, found);
}

void Weights::read_table() {
  const Json& table = table_->root();
  memory_ = static_cast<size_t>(table["memory"].integer(0, kMost));
  sums_ = table["sums"].string();
  for (const Json& each : table["layouts"].items()) layouts_.push_back(from_base64(each.text()));
  read_tensors(table);
  const int64_t last = static_cast<int64_t>(tensors_.size()) - 1;
  for (const Json& each : table["weights"].values())
    names_[std::string(each.name())] = each.integer(0, last);
  read_made(table);
}

void Weights::read_tensors(const Json& table) {
  std::vector<std::pair<int64_t, int64_t>> stretches;
  int64_t end = 0;
  for (const Json& each : table["stretches"].items()) {
    const int64_t offset = each.at(0).integer(end, kMost), size = each.at(1).integer(0, kMost);
    stretches.emplace_back(offset, size);
    end = offset + size;
  }
  if (end > static_cast<int64_t>(memory_) || memory_ % kPage != 0)
    throw Malformed("a memory of " + std::to_string(memory_) + " bytes for stretches of " +
                    std::to_string(end));
  for (const Json& row : table["tensors"].items()) tensors_.push_back(stored(row, stretches));
}

int64_t spanned(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                int64_t size) {
  int64_t last = 0;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    int64_t step;
    if (shape[dim] == 0) return 0;
    if (__builtin_mul_overflow(shape[dim] - 1, strides[dim], &step)) return INT64_MAX;
    if (__builtin_add_overflow(last, step, &last)) return INT64_MAX;
  }
  int64_t bytes;
  if (last == INT64_MAX || __builtin_mul_overflow(last + 1, size, &bytes)) return INT64_MAX;
  return bytes;
}

Weights::Stored Weights::stored(
    const Json& row, const std::vector<std::pair<int64_t, int64_t>>& stretches) const {
  Stored made{dtype_named(row.at(0).text()), {}, {}, -1, -1};
  for (const Json& size : row.at(1).items()) made.shape.push_back(size.integer(0, kMost));
  for (const Json& step : row.at(2).items()) made.strides.push_back(step.integer(0, kMost));
  const size_t fields = row.items().size();
  if (fields > 5 && !row.at(5).is_null())
    made.layout = row.at(5).integer(0, static_cast<int64_t>(layouts_.size()) - 1);
  if (made.layout < 0 && made.shape.size() != made.strides.size())
    throw Malformed("a shape with other strides");
  if (fields <= 3 || row.at(3).is_null()) {
    if (made.layout >= 0) throw Malformed("a packed tensor that lies nowhere");
    return made;
  }
  const auto& stretch = stretches[row.at(3).integer(0, static_cast<int64_t>(stretches.size()) - 1)];
  const int64_t offset = fields > 4 ? row.at(4).integer(0, kMost) : 0;
  const int64_t size = made.layout >= 0 ? 0 : spanned(made.shape, made.strides,
                                                      dtype_of(made.dtype)->size);
  if (offset > stretch.second || size > stretch.second - offset)
    throw Malformed("a tensor that goes beyond its stretch");
  made.place = stretch.first + offset;
  return made;
}

void Weights::read_made(const Json& table) {
  const int64_t last = static_cast<int64_t>(tensors_.size()) - 1;
  for (const Json& row : table["made"].items()) {
    Key key{row.at(0).string(), {}};
    for (const Json& each : row.at(1).items()) key.second.push_back(each.integer(0, last));
    std::vector<int64_t>& results = made_[key];
    for (const Json& each : row.at(2).items())
      results.push_back(each.is_null() ? -1 : each.integer(0, last));
  }
}

// --- where it fits ----------------------------------------------------------------------------

static std::vector<std::pair<std::string, std::string>> pairs_of(const Json& rows) {
  std::vector<std::pair<std::string, std::string>> found;
  for (const Json& row : rows.items()) found.emplace_back(row.at(0).string(), row.at(1).string());
  std::sort(found.begin(), found.end());
  return found;
}

static std::string only_in(const std::vector<std::pair<std::string, std::string>>& one,
                           const std::vector<std::pair<std::string, std::string>>& other) {
  std::vector<std::string> keys;
  for (const auto& pair : one)
    if (!std::binary_search(other.begin(), other.end(), pair))
      keys.push_back(cut(pair.first, 12));
  return keys.empty() ? "none that differ" : joined(keys, ", ");
}

void Weights::require_fit(const Json& wiring, const Host& here, const std::string& target) {
  const Json& table = table_->root();
  try {
    std::vector<Difference> differences = weights_misfits(table["fingerprint"], here);
    const bool is_level = !target.empty() && target != "native";
    const auto theirs = pairs_of(table["units"]), ours = pairs_of(wiring["units"]);
    if (theirs != ours)
      differences.push_back({"units", only_in(theirs, ours),
                             only_in(ours, theirs) + (is_level ? ", for " + target : "")});
    const std::string specs = table["specs"].string(), own = wiring["specs"].string();
    if (specs != own)
      differences.push_back({"table of weights", cut(specs, 16), cut(own, 16)});
    if (!differences.empty()) throw incompatible(file_, differences, kAgain);
  } catch (const Malformed& reason) {
    throw damaged("table", "what hotstart writes", std::string("this: ") + reason.what());
  }
  checking_ = std::async(std::launch::async, [this] { return sum(); });
}

// --- the memory -------------------------------------------------------------------------------

// The digest of the sums of all pages.
std::string Weights::sum() const {
  const size_t pages = memory_ / kPage;
  std::vector<uint64_t> sums(pages);
  for (size_t page = 0; page < pages; ++page) {
    const uint8_t* begin = mapping_.begin() + begin_ + page * kPage;
    uint64_t sum = 0;
    for (size_t place = 0; place < kPage; place += 8) {
      uint64_t word;
      std::memcpy(&word, begin + place, sizeof word);
      sum += word;
    }
    sums[page] = sum;
  }
  return sha256_in_hex(sums.data(), pages * sizeof sums[0]);
}

void Weights::require_whole() {
  const std::string found = checking_.get();
  if (found != sums_) throw damaged("memory", "SHA-256 " + sums_ + " of its sums", found);
}

// --- tensors ----------------------------------------------------------------------------------

int64_t Weights::number_of(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? -1 : found->second;
}

int64_t Weights::made(const std::string& preparation, const std::vector<int64_t>& of,
                      size_t number) const {
  const auto found = made_.find({preparation, of});
  return found == made_.end() || number >= found->second.size() ? -1 : found->second[number];
}

Owned Weights::tensor(const Torch& torch, int64_t number) const {
  const Stored& stored = tensors_.at(static_cast<size_t>(number));
  const std::string about = "tensor " + std::to_string(number);
  if (stored.place < 0)
    throw damaged("table", about + " as hotstart writes it", "only what was packed of it");
  const int rank = static_cast<int>(stored.shape.size());
  const std::vector<int64_t> none(stored.shape.size());
  const int64_t* strides = stored.strides.empty() ? none.data() : stored.strides.data();
  const std::string* layout = stored.layout < 0 ? nullptr : &layouts_[stored.layout];
  uint8_t* data = mapping_.begin() + begin_ + stored.place;
  try {
    return Owned(&torch,
                 torch.over(data, stored.shape.data(), strides, rank, stored.dtype, layout));
  } catch (const Failure& reason) {
    throw damaged("table", about + " as hotstart writes it", reason.what());
  }
}

}  // namespace hotstart
