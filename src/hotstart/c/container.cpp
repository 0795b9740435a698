#include "container.h"

#include <algorithm>
#include <cstring>

#include "failure.h"
#include "file.h"
#include "sha256.h"
#include "words.h"

namespace hotstart {

static const size_t kHeader = 160, kSigned = 64, kBlobAlignment = 64;
static const char kMagic[] = "HOTSTART";
static const uint64_t kFormat = 1, kSeveral = 2;

uint64_t little_endian(const uint8_t* bytes, int count) {
  uint64_t found = 0;
  for (int n = count - 1; n >= 0; --n) found = found << 8 | bytes[n];
  return found;
}

static size_t aligned(size_t position) {
  return (position + kBlobAlignment - 1) / kBlobAlignment * kBlobAlignment;
}

static bool any(const uint8_t* begin, size_t size) {
  return std::any_of(begin, begin + size, [](uint8_t byte) { return byte != 0; });
}

Container::Container(const std::string& file, const std::vector<std::string>& instructions)
    : file_(file) {
  OpenFile source(file);
  read_header(source.take(std::min(kHeader, source.size())), source.size());
  if (format_ == kSeveral)
    read_target(source, instructions);
  else
    rest_ = source.take(source.size() - kHeader);
  read_manifest();
  read_rows();
}

void Container::read_header(const std::vector<uint8_t>& header, size_t there) {
  const std::string_view start(reinterpret_cast<const char*>(header.data()),
                               std::min<size_t>(header.size(), 8));
  if (start != kMagic)
    throw corrupt(file_, "header", quoted(kMagic), start.empty() ? "an empty file" : quoted(start));
  if (header.size() >= 12) {  // another format may have a header of another length
    format_ = little_endian(header.data() + 8, 4);
    if (format_ != kFormat && format_ != kSeveral)
      throw incompatible(file_, {{"format", "1 or 2", std::to_string(format_)}});
  }
  if (header.size() < kHeader)
    throw corrupt(file_, "header", std::to_string(kHeader) + " bytes",
                  std::to_string(header.size()));
  const uint64_t reserved = little_endian(header.data() + 12, 4);
  if (reserved != 0)
    throw corrupt(file_, "header", "zero in the reserved field", std::to_string(reserved));
  const uint64_t size = little_endian(header.data() + 16, 8);
  if (size != there)
    throw corrupt(file_, "size", std::to_string(size) + " bytes", std::to_string(there));
  const uint64_t manifest = little_endian(header.data() + 24, 8);
  const bool several = format_ == kSeveral;
  if (manifest > size || (several ? kHeader + manifest : aligned(kHeader + manifest)) > size)
    throw corrupt(file_, "size", "room for a manifest of " + std::to_string(manifest) + " bytes",
                  std::to_string(size));
  const bool key = any(header.data() + kSigned, 32);
  const bool signature = any(header.data() + kSigned + 32, 64);
  if (key != signature)
    throw corrupt(file_, "header", "a key and a signature, or neither",
                  key ? "a key only" : "a signature only");
  size_ = there;
  manifest_bytes_ = manifest;
  area_ = aligned(kHeader + manifest);
  digest_ = hex(header.data() + 32, 32);
}

// Goes on as if the file had nothing but the manifest and blobs of one target.
void Container::read_target(OpenFile& source, const std::vector<std::string>& instructions) {
  const std::vector<uint8_t> index = source.take(manifest_bytes_);
  const std::string found = sha256_in_hex(index.data(), index.size());
  if (found != digest_) throw corrupt(file_, "index", "SHA-256 " + digest_, found);
  const size_t pool = kHeader + index.size();
  const std::string_view text(reinterpret_cast<const char*>(index.data()), index.size());
  targets_ = targets_of(file_, text, size_ - pool);
  const Target& target = targets_[best_that_fits(targets_, instructions)];
  manifest_bytes_ = target.manifest_bytes;
  digest_ = target.sha256;
  size_ = kHeader + target.size;
  area_ = aligned(kHeader + manifest_bytes_);
  if (area_ > size_)
    throw corrupt(file_, "size", "at least " + std::to_string(area_) + " bytes of " +
                                     shortened(target.name),
                  std::to_string(size_));
  std::vector<FileRange> places;
  for (const FileRange& each : target.ranges) places.push_back({pool + each.offset, each.size});
  rest_ = source.gather(places);
}

void Container::read_manifest() {
  const std::string found = sha256_in_hex(rest_.data(), manifest_bytes_);
  if (found != digest_) throw corrupt(file_, "manifest", "SHA-256 " + digest_, found);
  if (any(rest_.data() + manifest_bytes_, area_ - kHeader - manifest_bytes_))
    throw corrupt(file_, "manifest", "zeros after it", "other bytes");
  try {
    const char* text = reinterpret_cast<const char*>(rest_.data());
    manifest_.reset(new JsonDocument(std::string_view(text, manifest_bytes_)));
  } catch (const Malformed& reason) {
    throw corrupt(file_, "manifest", "a JSON object with a table of blobs",
                  std::string("this: ") + reason.what());
  }
}

void Container::read_rows() {
  size_t end = 0;
  try {
    for (const Json& each : manifest()["blobs"].items()) {
      const std::string name = each["name"].string(), shown = shortened(name);
      const size_t size = each["size"].integer(0, INT64_MAX);
      const size_t offset = each["offset"].integer(0, INT64_MAX);
      if (rows_.count(name) != 0)
        throw corrupt(file_, "manifest", "blobs with different names", "two named " + shown);
      if (offset != aligned(end))
        throw corrupt(file_, "manifest",
                      "blob " + shown + " at offset " + std::to_string(aligned(end)),
                      std::to_string(offset));
      if (size > size_ || offset > size_ - size)
        throw corrupt(file_, "size", "room for blob " + shown, std::to_string(size_));
      rows_[name] = {offset, size, each["sha256"].string()};
      end = offset + size;
    }
  } catch (const Malformed& reason) {
    throw corrupt(file_, "manifest", "a JSON object with a table of blobs",
                  std::string("this: ") + reason.what());
  }
  if (area_ + end != size_)
    throw corrupt(file_, "size",
                  std::to_string(area_ + end) + " bytes, as the table of blobs adds up to",
                  std::to_string(size_));
}

Blob Container::verified(const std::string& name) const {
  const auto found = rows_.find(name);
  if (found == rows_.end())
    throw corrupt(file_, "manifest", "the blob " + shortened(name), "none of that name");
  const Row& row = found->second;
  const uint8_t* data = rest_.data() + (area_ - kHeader) + row.offset;
  const std::string digest = sha256_in_hex(data, row.size);
  if (digest != row.sha256)
    throw corrupt(file_, "blob " + shortened(name), "SHA-256 " + shortened(row.sha256), digest);
  return {data, row.size, digest};
}

}  // namespace hotstart
