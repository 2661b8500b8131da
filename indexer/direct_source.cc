#include "indexer/direct_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "indexer/disk_window.h"
#include "indexer/reader_process.h"

namespace mirage {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kPieceBytes = 1 << 20;
constexpr uint64_t kLeastEntryBytes = 8;        // of a directory's block, for each name in it

tl::unexpected<Error> Impossible(std::string_view what) {
  return Fail(EIO, "the disk reader sent {}; the image may be made to do harm", what);
}

}  // namespace

// Reads one filesystem into the version's directory `prefix`. Holds the child to what a filesystem of its size can
// hold.
class DirectSource::MountReading {
 public:
  MountReading(const DirectSource& source, const DirectMount& mount, ImportSink& sink)
      : source_(source),
        mount_(mount),
        window_(source.image_, mount.partition.offset, mount.partition.size),
        written_(window_.WrittenBytes()),
        prefix_(mount.path == "/" ? "" : mount.path.substr(1)),
        sink_(sink) {
    // Not to be known again; or without inode numbers and a clock that stamps every change, as FAT is.
    if (mount.partition.uuid.empty() || KindOf(mount.filesystem) != FilesystemKind::kExt) return;
    SourceFilesystem filesystem;
    filesystem.identity = FilesystemIdentity(mount.partition.uuid);
    filesystem.made_sec = mount.partition.made_sec;
    filesystem_ = sink.AddFilesystem(std::move(filesystem));
  }

  // `hidden`: directories of this filesystem in which others are mounted; those that were seen go to `seen`.
  Status Run(const std::vector<std::string>& hidden, std::set<std::string>& seen) {
    ReaderProcess::Options job;
    job.image = source_.image_;
    job.arguments = {"walk", mount_.partition.type, std::to_string(mount_.partition.offset),
                     std::to_string(mount_.partition.size)};
    job.arguments.insert(job.arguments.end(), hidden.begin(), hidden.end());
    job.interrupted = source_.interrupted_;
    ASSIGN_OR_RETURN(reader_, ReaderProcess::Start(job));
    for (;;) {
      ASSIGN_OR_RETURN(const ReaderRecord record, reader_->Next());
      if (record.kind == RecordKind::kDone) break;
      if (++entries_ > written_ / kLeastEntryBytes)
        return Impossible("more names than the filesystem has room for");
      switch (record.kind) {
        case RecordKind::kEntry: {
          ASSIGN_OR_RETURN(EntryRecord entry, DecodeEntryRecord(record.payload));
          if (entry.entry.type == FileType::kRegular) return Impossible("a file without bytes");
          any_ = true;
          if (entry.entry.is_directory() && std::find(hidden.begin(), hidden.end(), entry.path) != hidden.end()) {
            seen.insert(Join(entry.path));
          }
          static_cast<void>(IsUnchanged(Join(entry.path), entry, entry.target.size()));  // for the appliance, next time
          TRY(sink_.Add(Join(entry.path), std::move(entry.entry), entry.xattrs, std::move(entry.target)));
          break;
        }
        case RecordKind::kFile: {
          ASSIGN_OR_RETURN(EntryRecord entry, DecodeEntryRecord(record.payload));
          if (entry.entry.type != FileType::kRegular) return Impossible("bytes of what is no file");
          TRY(TakeFile(std::move(entry)));
          break;
        }
        case RecordKind::kLink: {
          ASSIGN_OR_RETURN(const LinkRecord link, DecodeLink(record.payload));
          TRY(sink_.AddLink(Join(link.path), Join(link.first)));
          break;
        }
        default:
          return Impossible("an impossible record");
      }
    }
    return any_ ? Status{} : Impossible("nothing");
  }

 private:
  std::string Join(const std::string& path) const {
    return prefix_.empty() ? path : path.empty() ? prefix_ : prefix_ + "/" + path;
  }

  bool IsUnchanged(const std::string& path, const EntryRecord& record, uint64_t size) {
    if (!filesystem_ || record.inode == 0) return false;
    return sink_.Unchanged(path, record.entry, size,
                           {*filesystem_, record.inode, record.ctime_sec, record.ctime_nsec});
  }

  // The extents and bytes that follow a kFile, in ascending order and inside its size; what lies between is zeros.
  Status TakeFile(EntryRecord file) {
    const uint64_t size = std::exchange(file.entry.size, 0);
    const std::string path = Join(file.path);
    const bool excluded = sink_.Excluded(path), unchanged = !excluded && IsUnchanged(path, file, size);
    const bool wanted = !excluded && !unchanged, whole = size <= kWholeFileBytes;
    std::string bytes;
    if (whole && wanted) bytes.resize(static_cast<size_t>(size));
    if (wanted && !whole) TRY(sink_.BeginFile(path, file.entry, file.xattrs));
    uint64_t at = 0, got = 0;
    for (;;) {
      ASSIGN_OR_RETURN(const ReaderRecord record, reader_->Next());
      if (record.kind == RecordKind::kEndFile) break;
      if (record.kind == RecordKind::kBytes) {
        if (record.payload.size() > size - at) return Impossible("more bytes than a file has");
        TRY(Spend(record.payload.size(), wanted));
        if (whole && wanted) bytes.replace(static_cast<size_t>(at), record.payload.size(), record.payload);
        if (wanted && !whole) TRY(sink_.AppendFile(record.payload));
        at += record.payload.size();
        got += record.payload.size();
        continue;
      }
      if (record.kind != RecordKind::kExtents) return Impossible("an impossible record");
      ASSIGN_OR_RETURN(const std::vector<Extent> extents, DecodeExtents(record.payload));
      for (const Extent& extent : extents) {
        if (extent.length == 0 || extent.logical < at || extent.logical >= size)
          return Impossible("impossible extents");
        TRY(Spend(extent.length, wanted));
        const uint64_t length = std::min(extent.length, size - extent.logical);
        if (wanted && whole) {
          TRY(window_.ReadAt(extent.physical, bytes.data() + extent.logical, static_cast<size_t>(length)));
        } else if (wanted) {
          TRY(sink_.AppendHole(extent.logical - at));
          TRY(AppendBytes(extent.physical, length));
        }
        at = extent.logical + length;
        got += length;
      }
    }
    if (unchanged) return sink_.AddUnchanged(path, &file.xattrs);
    if (excluded) return {};
    // A file of this size costs an inode alone.
    if (whole && got < size) TRY(sink_.CountHole(size - got));
    if (whole) return sink_.AddFile(path, std::move(file.entry), file.xattrs, std::move(bytes));
    TRY(sink_.AppendHole(size - at));
    return sink_.EndFile();
  }

  Status AppendBytes(uint64_t physical, uint64_t length) {
    while (length > 0) {
      buffer_.resize(static_cast<size_t>(std::min<uint64_t>(length, kPieceBytes)));
      TRY(window_.ReadAt(physical, buffer_.data(), buffer_.size()));
      TRY(sink_.AppendFile(buffer_));
      physical += buffer_.size();
      length -= buffer_.size();
    }
    return {};
  }

  // Blocks that several files hold would make a small image a large tree, and so would those that are holes of a sparse
  // image.
  Status Spend(uint64_t bytes, bool wanted) {
    if (bytes > window_.size() - spent_) return Impossible("more bytes than the filesystem has");
    const uint64_t free = written_ - std::min(spent_, written_);
    spent_ += bytes;
    return wanted && bytes > free ? sink_.CountHole(bytes - free) : Status{};
  }

  const DirectSource& source_;
  const DirectMount& mount_;
  const DiskWindow window_;
  const uint64_t written_;
  const std::string prefix_;
  ImportSink& sink_;
  std::unique_ptr<ReaderProcess> reader_;
  std::string buffer_;
  std::optional<uint32_t> filesystem_;  // in the facts; nothing: it has none
  uint64_t entries_ = 0, spent_ = 0;
  bool any_ = false;
};

Result<std::unique_ptr<DirectSource>> DirectSource::Open(const std::string& path,
                                                         const std::atomic<bool>* interrupted) {
  const int image = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (image < 0) return FailErrno(errno, path);
  const off_t end = lseek(image, 0, SEEK_END);
  std::unique_ptr<DirectSource> source(
      new DirectSource(image, static_cast<uint64_t>(std::max<off_t>(end, 0)), interrupted));
  DiskPlanOptions options;
  options.image = image;
  options.size = source->size_;
  options.interrupted = interrupted;
  ASSIGN_OR_RETURN(source->plan_, PlanDisk(options));
  return source;
}

DirectSource::~DirectSource() { close(image_); }

Result<SourceDescription> DirectSource::Read(ImportSink& sink) {
  SourceDescription description;
  Disk disk;
  disk.name = "sda";
  disk.role = plan_.has_system ? "system" : "data";
  disk.size_bytes = (size_ + kSectorBytes - 1) / kSectorBytes * kSectorBytes;  // as QEMU shows it to a guest
  description.disks.push_back(std::move(disk));
  for (const std::string& omission : plan_.omissions) sink.Omit(omission);
  for (const std::string& doubt : plan_.doubts) sink.Omit(doubt);
  sink.Stage("reading the disk");
  for (const DirectMount& mount : plan_.mounts) sink.Expect(mount.partition.used_bytes);

  // What a disk without a root has for its top directory; a root's own attributes replace it.
  Entry top;
  top.type = FileType::kDirectory;
  top.mode = 0755;
  TRY(sink.Add("", top, {}, ""));
  std::set<std::string> seen;
  for (const DirectMount& mount : plan_.mounts) {
    if (plan_.has_system && mount.path != "/" && !seen.contains(mount.path.substr(1))) {
      sink.Omit(fmt::format("{} ({}) cannot be mounted: the system has no directory {}", mount.device, mount.filesystem,
                            mount.path));
      continue;
    }
    std::vector<std::string> hidden;
    const std::string below = mount.path == "/" ? "/" : mount.path + "/";
    for (const DirectMount& other : plan_.mounts) {
      if (&other != &mount && other.path.starts_with(below)) hidden.push_back(other.path.substr(below.size()));
    }
    const Status status = MountReading(*this, mount, sink).Run(hidden, seen);
    if (!status && status.error().code == EINTR) return tl::make_unexpected(status.error());
    if (!status) return Annotate(status.error(), fmt::format("{} ({})", mount.device, mount.filesystem));
    description.mounts.push_back({mount.path, mount.filesystem, mount.device});
  }
  std::sort(description.mounts.begin(), description.mounts.end(),
            [](const Mount& a, const Mount& b) { return a.path < b.path; });
  if (plan_.has_system) {
    SystemDescription system = plan_.system;
    for (const Mount& mount : description.mounts) system.mountpoints[mount.path] = mount.device;
    description.inspection = EncodeSystem(std::move(system));
  }
  return description;
}

}  // namespace mirage
