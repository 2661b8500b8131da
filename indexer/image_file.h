// The file of a disk image, and the numbers in its header.
#pragma once

#include <endian.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "store/result.h"

namespace mirage {

class ImageFile {
 public:
  // EINVAL: neither a regular file nor a block device.
  static Result<ImageFile> Open(const std::string& path);
  uint64_t size() const { return size_; }
  // Short at the end of the file.
  std::string Read(uint64_t offset, size_t length) const;
  // False: it lies in a hole of the file, so that all of it is zeros.
  bool HasData(uint64_t offset, uint64_t length) const;

 private:
  std::shared_ptr<const int> fd_;
  uint64_t size_ = 0;
};

// 0 behind the end of the bytes.
template <typename T>
T LoadOrZero(std::string_view bytes, size_t offset) {
  T value{};
  if (offset + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}
inline uint32_t Big32(std::string_view bytes, size_t offset) { return be32toh(LoadOrZero<uint32_t>(bytes, offset)); }
inline uint64_t Big64(std::string_view bytes, size_t offset) { return be64toh(LoadOrZero<uint64_t>(bytes, offset)); }
inline uint32_t Little32(std::string_view bytes, size_t offset) { return le32toh(LoadOrZero<uint32_t>(bytes, offset)); }
inline uint64_t Little64(std::string_view bytes, size_t offset) { return le64toh(LoadOrZero<uint64_t>(bytes, offset)); }

}  // namespace mirage
