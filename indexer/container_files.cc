#include "indexer/container_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "indexer/byte_stream.h"
#include "indexer/scratch_file.h"
#include "indexer/tar_stream.h"

namespace mirage {
namespace {

constexpr size_t kMaxMembers = 1 << 20;
constexpr size_t kMemberBytes = 192;  // in memory, beside its names
constexpr int kMaxLinks = 10;  // of an archive's member to another
constexpr size_t kReadBytes = 256 << 10;
constexpr size_t kDigestDigits = 64;

std::shared_ptr<const int> Own(int fd) {
  return {new int(fd), [](const int* owned) {
            close(*owned);
            delete owned;
          }};
}

// "a/../b" -> "b"; nullopt: it leads out.
std::optional<std::string> Normalize(std::string_view path) {
  std::vector<std::string_view> names;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view name = path.substr(start, end - start);
    start = end + 1;
    if (name.empty() || name == ".") continue;
    if (name.find('\0') != std::string_view::npos) return std::nullopt;
    if (name != "..") {
      names.push_back(name);
    } else if (names.empty()) {
      return std::nullopt;
    } else {
      names.pop_back();
    }
  }
  std::string out;
  for (const std::string_view name : names) {
    if (!out.empty()) out += '/';
    out += name;
  }
  return out;
}

// What container images consist of, by the names that their many writers give. No system's own files are called so.
bool IsImageMember(std::string_view path) {
  static constexpr std::string_view kNames[] = {"oci-layout", "repositories", "VERSION", "json", "layer.tar", "blobs"};
  static constexpr std::string_view kEnds[] = {".json", ".tar", ".tar.gz", ".tgz"};
  if (path.empty() || path.starts_with("blobs/")) return true;
  const std::string_view name = path.substr(path.rfind('/') + 1);
  for (const std::string_view known : kNames) {
    if (name == known) return true;
  }
  for (const std::string_view end : kEnds) {
    if (name.ends_with(end)) return true;
  }
  std::string_view digest = path.substr(0, path.find('/'));
  if (digest.starts_with("sha256:")) digest.remove_prefix(7);
  return digest.size() == kDigestDigits && digest.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// What is read from a stream and, if it is not a plain file's own, kept.
class Spooling {
 public:
  Spooling(const ContainerFiles::ArchiveOptions& options) : options_(options) {}

  Status Open() {
    if (options_.path != "-") {
      const int fd = open(options_.path.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0) return FailErrno(errno, options_.path);
      fd_ = Own(fd);
      struct stat st;
      char magic[6] = {};
      constexpr off_t kMagicOffset = 257;
      plain_ = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, magic, 5, kMagicOffset) == 5 &&
               std::string_view(magic) == "ustar";
      if (plain_) {
        size_ = static_cast<uint64_t>(st.st_size);
        return {};
      }
    }
    ASSIGN_OR_RETURN(stream_, ByteStream::Open(options_.path, options_.interrupted));
    int fd = open(options_.scratch.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {  // not every filesystem has nameless files
      std::string name = options_.scratch + "/archive.XXXXXX";
      fd = mkostemp(name.data(), O_CLOEXEC);
      if (fd >= 0) unlink(name.c_str());
    }
    if (fd < 0) return FailErrno(errno, "cannot make a scratch file in " + options_.scratch);
    fd_ = Own(fd);
    scratch_.emplace(fd);
    return {};
  }

  Result<size_t> Read(char* out, size_t size) {
    if (options_.interrupted != nullptr && options_.interrupted->load()) {
      return Fail(EINTR, "interrupted; the library is as it was");
    }
    if (plain_) {
      const ssize_t n = pread(*fd_, out, size, static_cast<off_t>(at_));
      if (n < 0) return FailErrno(errno, options_.path);
      at_ += static_cast<uint64_t>(n);
      return static_cast<size_t>(n);
    }
    ASSIGN_OR_RETURN(const size_t n, stream_->Read(out, size));
    TRY(scratch_->Append({out, n}, stream_->taken()));
    at_ += n;
    return n;
  }
  Status Skip(uint64_t size) {
    if (plain_) {
      if (size > size_ - std::min(at_, size_)) return Fail(EIO, "the archive ends too early");
      at_ += size;
      return {};
    }
    buffer_.resize(kReadBytes);
    while (size > 0) {
      ASSIGN_OR_RETURN(const size_t n,
                       Read(buffer_.data(), static_cast<size_t>(std::min<uint64_t>(size, buffer_.size()))));
      if (n == 0) return Fail(EIO, "the archive ends too early");
      size -= n;
    }
    return {};
  }
  // A damaged end of a compressed archive shows only when it is read to its end.
  Status Drain() {
    if (plain_) return {};
    buffer_.resize(kReadBytes);
    for (;;) {
      ASSIGN_OR_RETURN(const size_t n, stream_->Read(buffer_.data(), buffer_.size()));
      if (n == 0) break;
    }
    return scratch_->Finish();
  }
  uint64_t at() const { return at_; }
  const std::shared_ptr<const int>& fd() const { return fd_; }

 private:
  const ContainerFiles::ArchiveOptions& options_;
  std::shared_ptr<const int> fd_;
  std::unique_ptr<ByteStream> stream_;
  std::optional<ScratchFile> scratch_;
  bool plain_ = false;
  uint64_t at_ = 0, size_ = 0;
  std::string buffer_;
};

}  // namespace

Result<size_t> FilePart::ReadAt(uint64_t at, char* out, size_t length) const {
  if (at >= size_) return size_t{0};
  length = static_cast<size_t>(std::min<uint64_t>(length, size_ - at));
  for (;;) {
    const ssize_t n = pread(*fd_, out, length, static_cast<off_t>(offset_ + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "it cannot be read");
    if (n == 0) return Fail(EIO, "it ends too early");
    return static_cast<size_t>(n);
  }
}

Result<std::unique_ptr<ContainerFiles>> ContainerFiles::OpenDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, path);
  std::unique_ptr<ContainerFiles> files(new ContainerFiles);
  files->fd_ = Own(fd);
  files->directory_ = true;
  if (auto layout = files->Find("oci-layout"); !layout) return tl::make_unexpected(std::move(layout).error());
  return files;
}

Result<std::unique_ptr<ContainerFiles>> ContainerFiles::OpenArchive(const ArchiveOptions& options) {
  std::unique_ptr<ContainerFiles> files(new ContainerFiles);
  Spooling spool(options);
  NameMemory memory(options.name_bytes);
  TRY(spool.Open());
  TarStream stream([&](char* out, size_t size) { return spool.Read(out, size); },
                   [&](uint64_t size) { return spool.Skip(size); });
  for (;;) {
    auto next = stream.Next();
    // Who did not say that it is an image is told by the reader of archives what is wrong with it.
    if (!next && !options.asked && !options.any && files->members_.empty()) return nullptr;
    if (!next) return tl::make_unexpected(std::move(next).error());
    if (!*next) break;
    const TarMember& member = **next;
    if (!options.asked && !options.any && !IsImageMember(member.path)) return nullptr;
    TRY(memory.Spend(2 * member.path.size() + member.target.size() + kMemberBytes));
    if (files->members_.size() >= kMaxMembers) return Fail(E2BIG, "more than {} members", kMaxMembers);
    Member place{spool.at(), member.size, {}};
    if (member.hard_link) {
      place.link = member.target;
    } else if (member.entry.type == FileType::kSymlink) {
      const size_t slash = member.path.rfind('/');
      const auto target =
          Normalize((slash == std::string::npos ? "" : member.path.substr(0, slash + 1)) + member.target);
      if (!target) continue;
      place.link = *target;
    } else if (member.entry.type != FileType::kRegular || member.sparse) {
      continue;
    }
    files->members_[member.path] = std::move(place);
  }
  TRY(spool.Drain());
  files->fd_ = spool.fd();
  if (options.any || files->Has("oci-layout") || files->Has("manifest.json")) return files;
  if (options.asked) return Fail(EINVAL, "it is no container image: it has neither oci-layout nor manifest.json");
  return nullptr;
}

std::vector<std::string> ContainerFiles::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, member] : members_) names.push_back(name);
  return names;
}

Result<FilePart> ContainerFiles::Find(std::string_view name) const {
  const auto clean = Normalize(name);
  if (!clean || clean->empty() || name.starts_with('/')) {
    return Fail(EINVAL, "the image names a file outside of it: {}", name);
  }
  if (directory_) {
    std::shared_ptr<const int> at = fd_;
    for (size_t start = 0;;) {
      const size_t end = std::min(clean->find('/', start), clean->size());
      const std::string part = clean->substr(start, end - start);
      const bool last = end == clean->size();
      const int fd =
          openat(*at, part.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? O_NONBLOCK : O_DIRECTORY));
      if (fd < 0) return FailErrno(errno, *clean);
      at = Own(fd);
      start = end + 1;
      if (last) break;
    }
    struct stat st;
    if (fstat(*at, &st) != 0) return FailErrno(errno, *clean);
    if (!S_ISREG(st.st_mode)) return Fail(EINVAL, "{} is no regular file", *clean);
    return FilePart(at, 0, static_cast<uint64_t>(st.st_size));
  }
  auto found = members_.find(*clean);
  for (int links = 0; found != members_.end() && !found->second.link.empty(); ++links) {
    if (links == kMaxLinks) return Fail(EINVAL, "{} is a link to itself", *clean);
    found = members_.find(found->second.link);
  }
  if (found == members_.end()) return Fail(ENOENT, "the image has no file {}", *clean);
  return FilePart(fd_, found->second.offset, found->second.size);
}

Result<std::string> ContainerFiles::ReadWhole(std::string_view name, size_t limit) const {
  ASSIGN_OR_RETURN(const FilePart part, Find(name));
  if (part.size() > limit) return Fail(E2BIG, "{} has {} bytes; at most {} are read", name, part.size(), limit);
  std::string bytes(static_cast<size_t>(part.size()), '\0');
  for (size_t done = 0; done < bytes.size();) {
    ASSIGN_OR_RETURN(const size_t n, part.ReadAt(done, bytes.data() + done, bytes.size() - done));
    done += n;
  }
  return bytes;
}

}  // namespace mirage
