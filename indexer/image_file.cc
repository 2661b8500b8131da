#include "indexer/image_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mirage {

Result<ImageFile> ImageFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FailErrno(errno, path);
  ImageFile file;
  file.fd_ = std::shared_ptr<const int>(new int(fd), [](const int* owned) {
    close(*owned);
    delete owned;
  });
  struct stat st;
  if (fstat(fd, &st) != 0) return FailErrno(errno, path);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return Fail(EINVAL, "it is neither a directory nor a disk image");
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) return FailErrno(errno, path);
  file.size_ = static_cast<uint64_t>(end);
  return file;
}

std::string ImageFile::Read(uint64_t offset, size_t length) const {
  if (offset >= size_) return {};
  std::string bytes(length, '\0');
  const ssize_t n = pread(*fd_, bytes.data(), length, static_cast<off_t>(offset));
  bytes.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return bytes;
}

bool ImageFile::HasData(uint64_t offset, uint64_t length) const {
  const off_t data = lseek(*fd_, static_cast<off_t>(offset), SEEK_DATA);
  return data < 0 ? errno != ENXIO : static_cast<uint64_t>(data) < offset + length;
}

}  // namespace mirage
