#include "indexer/guestfs_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include "indexer/libguestfs.h"
#include "indexer/sparse_file.h"
#include "indexer/tar_stream.h"
#include "indexer/tree_scan.h"

namespace mirage {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kPipeBytes = 1 << 20;

constexpr size_t kNamesBytes = 8 << 20;          // of names, in memory
constexpr size_t kExcludesBytes = 3 << 20;       // of a message's 4 MiB

// When an ext filesystem was made, to the second; INT64_MAX: not known, so that no time is later.
int64_t TimeMade(guestfs_h* g, const std::string& device) {
  char** const values = Guestfs().tune2fs_l(g, device.c_str());
  if (values == nullptr) return INT64_MAX;
  int64_t made = INT64_MAX;
  for (char** item = values; item[0] != nullptr && item[1] != nullptr; item += 2) {
    std::tm time{};
    if (std::string_view(item[0]) != "Filesystem created") continue;
    if (strptime(item[1], "%a %b %d %H:%M:%S %Y", &time) != nullptr) made = timegm(&time);
  }
  for (char** item = values; *item != nullptr; ++item) std::free(*item);
  std::free(values);
  return made;
}

void CloseIfOpen(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

std::string Join(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  if (name.empty()) return std::string(directory);
  return fmt::format("{}/{}", directory, name);
}

}  // namespace

// Reads the tree below one directory of the appliance into the version's directory `prefix`.
class GuestfsSource::TreeReading {
 public:
  TreeReading(Appliance& appliance, const Options& options, ImportSink& sink,
              const std::map<int64_t, uint32_t>& filesystems, std::string directory, std::string prefix)
      : appliance_(appliance),
        options_(options),
        sink_(sink),
        directory_(std::move(directory)),
        prefix_(std::move(prefix)),
        filesystems_(filesystems),
        names_file_(options.scratch + "/names"),
        names_(Env::Default(), options.scratch, "names", kNamesBytes),
        excludes_(kExcludesBytes) {}
  ~TreeReading() { unlink(names_file_.c_str()); }
  TreeReading(const TreeReading&) = delete;
  TreeReading& operator=(const TreeReading&) = delete;

  Status Run() {
    TRY(ListNames());
    TreeScan scan(appliance_, sink_, {directory_, prefix_, &filesystems_}, excludes_);
    sink_.Stage("comparing the files");
    TRY(scan.Run(names_, [this](const std::string& name) {
      if (const size_t index = IndexOf(name); index < state_.size()) state_[index] = kHandled;
    }));
    sink_.Stage("reading the files");
    TRY(StreamFiles());
    for (const SparseFile& file : scan.sparse()) TRY(ReadSparseFile(appliance_, directory_, prefix_, file, sink_));
    return CheckAllCame();
  }

 private:
  // All names, as find(1) in the appliance sees them; what the stream does not bring is looked at afterwards. 8 bytes
  // a name.
  Status ListNames() {
    if (Guestfs().find0(appliance_.handle(), directory_.c_str(), names_file_.c_str()) != 0) {
      return appliance_.Failed("cannot list the files");
    }
    TRY(ForEachName([&](const std::string& name) {
      hashes_.push_back(HashPath(name));
      return names_.Add(names_.Ticket(), name, {});
    }));
    std::sort(hashes_.begin(), hashes_.end());
    state_.assign(hashes_.size(), kMissing);
    return {};
  }

  Status ForEachName(const std::function<Status(const std::string&)>& visit) const {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(names_file_.c_str(), "re"), std::fclose);
    if (!file) return FailErrno(errno, names_file_);
    char* line = nullptr;
    size_t capacity = 0;
    Status status;
    while (status) {
      const ssize_t length = getdelim(&line, &capacity, 0, file.get());
      if (length < 0) break;
      std::string name(line, static_cast<size_t>(length));
      if (!name.empty() && name.back() == 0) name.pop_back();
      // Below "/" names come as "etc/passwd", below any other directory as "/etc/passwd".
      if (name.starts_with('/')) name.erase(0, 1);
      if (!name.empty()) status = visit(name);
    }
    std::free(line);
    return status;
  }

  // With a seed of its own: two names of one hash would let a file hide behind another.
  uint64_t HashPath(std::string_view path) const { return XXH3_64bits_withSeed(path.data(), path.size(), seed_); }
  size_t IndexOf(std::string_view name) const {
    const uint64_t hash = HashPath(name);
    const auto found = std::lower_bound(hashes_.begin(), hashes_.end(), hash);
    return found != hashes_.end() && *found == hash ? static_cast<size_t>(found - hashes_.begin()) : hashes_.size();
  }

  // Those of the patterns that tar takes in the same sense: its own match at any '/', and begin with "./". libguestfs
  // hands them over in a file, a line each. What is not passed on, the sink drops.
  void AddUserPatterns() {
    for (std::string pattern : options_.exclude) {
      const bool in_a_line = pattern.find_first_of("\n\r") == std::string::npos;
      if (!in_a_line || pattern.back() == ' ' || pattern.back() == '\t') continue;
      if (pattern[0] == '/' && !prefix_.empty()) {
        if (!pattern.starts_with("/" + prefix_ + "/")) continue;
        pattern.erase(0, prefix_.size() + 1);
      }
      excludes_.AddPattern(pattern[0] == '/' ? "." + pattern : pattern);
    }
  }

  // One tar of everything, made in the appliance by a thread of its own, read from a pipe here.
  Status StreamFiles() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "cannot make a pipe");
    fcntl(ends[0], F_SETPIPE_SZ, kPipeBytes);
    AddUserPatterns();
    std::vector<std::string> patterns = excludes_.patterns();
    std::vector<char*> excludes;
    for (std::string& pattern : patterns) excludes.push_back(pattern.data());
    excludes.push_back(nullptr);
    // --xattrs brings every attribute as the kernel gives it, ACLs and SELinux labels too; the flags `acls` and
    // `selinux` would add them once more as text.
    struct guestfs_tar_out_opts_argv arguments{};
    arguments.bitmask = GUESTFS_TAR_OUT_OPTS_NUMERICOWNER_BITMASK | GUESTFS_TAR_OUT_OPTS_XATTRS_BITMASK |
                        GUESTFS_TAR_OUT_OPTS_EXCLUDES_BITMASK;
    arguments.numericowner = 1;
    arguments.xattrs = 1;
    arguments.excludes = excludes.data();

    int sent = -1;
    std::thread sender([&] {
      const std::string place = fmt::format("/dev/fd/{}", ends[1]);
      sent = Guestfs().tar_out_opts_argv(appliance_.handle(), directory_.c_str(), place.c_str(), &arguments);
      CloseIfOpen(ends[1]);
    });
    TarStream stream([&](char* out, size_t size) -> Result<size_t> {
      for (;;) {
        const ssize_t n = read(ends[0], out, size);
        if (n >= 0) return static_cast<size_t>(n);
        if (errno != EINTR) return FailErrno(errno, "the stream of files");
      }
    });
    Status status = TakeMembers(stream);
    if (!status) appliance_.Cancel();
    // To the end of the pipe, or the sender would never come back: padding behind the archive, or what an error left.
    std::string rest(64 << 10, '\0');
    while (read(ends[0], rest.data(), rest.size()) > 0) {
    }
    sender.join();
    CloseIfOpen(ends[0]);
    // When the guest gave up, the broken stream is only what followed.
    if (sent != 0 && (status || status.error().code == EIO)) return appliance_.Failed("the files cannot be read");
    return status;
  }

  Status TakeMembers(TarStream& stream) {
    for (;;) {
      ASSIGN_OR_RETURN(auto next, stream.Next());
      if (!next) return {};
      TarMember& member = *next;
      if (const size_t index = IndexOf(member.path); index < state_.size()) {
        if (state_[index] == kHandled) continue;  // it did not fit among the patterns
        state_[index] = kCame;
      }
      if (member.sparse) return Fail(EIO, "/{} came as a sparse member, which was not asked for", member.path);
      std::string path = Join(prefix_, member.path);
      if (member.hard_link) {
        TRY(sink_.AddLink(std::move(path), Join(prefix_, member.target)));
      } else if (member.entry.type != FileType::kRegular) {
        TRY(sink_.Add(std::move(path), std::move(member.entry), member.xattrs, std::move(member.target)));
      } else if (member.size <= kWholeFileBytes) {
        ASSIGN_OR_RETURN(std::string bytes, stream.ReadData(static_cast<size_t>(member.size)));
        TRY(sink_.AddFile(std::move(path), std::move(member.entry), member.xattrs, std::move(bytes)));
      } else {
        TRY(sink_.BeginFile(std::move(path), std::move(member.entry), member.xattrs));
        for (;;) {
          ASSIGN_OR_RETURN(const std::string piece, stream.ReadData(kPieceBytes));
          if (piece.empty()) break;
          TRY(sink_.AppendFile(piece));
        }
        TRY(sink_.EndFile());
      }
    }
  }

  // Any name that find(1) saw and that came on no road is an error: nothing is lost in silence.
  Status CheckAllCame() {
    return ForEachName([&](const std::string& name) -> Status {
      const size_t index = IndexOf(name);
      if (index < state_.size() && state_[index] == kMissing && !sink_.Excluded(Join(prefix_, name))) {
        return Fail(EIO, "/{} was listed, but not read", Join(prefix_, name));
      }
      return {};
    });
  }

  Appliance& appliance_;
  const Options& options_;
  ImportSink& sink_;
  const std::string directory_, prefix_;
  const std::map<int64_t, uint32_t>& filesystems_;
  const std::string names_file_;
  PathSpool names_;
  TarExcludes excludes_;
  const uint64_t seed_ = std::random_device()() | uint64_t{std::random_device()()} << 32;
  enum State : uint8_t { kMissing, kHandled, kCame };
  std::vector<uint64_t> hashes_;  // of all names, sorted
  std::vector<State> state_;      // of each: whether the scan has added it, or the stream has brought it
};

namespace {

// By st_dev, those of the sink's filesystems whose ctime tells every change.
std::map<int64_t, uint32_t> AddFilesystems(Appliance& appliance, const Inspection& inspection, ImportSink& sink) {
  guestfs_h* const g = appliance.handle();
  std::map<int64_t, uint32_t> indexes;
  for (const MountPlan& plan : inspection.mounts) {
    const bool ext = plan.filesystem == "ext2" || plan.filesystem == "ext3" || plan.filesystem == "ext4";
    if (!ext && plan.filesystem != "xfs" && plan.filesystem != "btrfs") continue;
    std::string device = plan.device, subvolume;
    if (device.starts_with("btrfsvol:")) {  // "btrfsvol:/dev/sda2/home"; a device of a volume group has two slashes
      char* const real = Guestfs().mountable_device(g, plan.device.c_str());
      if (real == nullptr) continue;
      device = real;
      std::free(real);
      subvolume = plan.device;
    } else if (plan.filesystem == "btrfs") {
      subvolume = "top";
    }
    char* const uuid = Guestfs().vfs_uuid(g, device.c_str());
    struct guestfs_statns* const st = Guestfs().lstatns(g, plan.path.c_str());
    SourceFilesystem filesystem;
    filesystem.identity = FilesystemIdentity(uuid == nullptr ? "" : uuid, subvolume);
    if (ext) filesystem.made_sec = TimeMade(g, device);
    if (uuid != nullptr && *uuid != 0 && st != nullptr && !indexes.contains(st->st_dev)) {
      if (const auto index = sink.AddFilesystem(std::move(filesystem))) indexes[st->st_dev] = *index;
    }
    std::free(uuid);
    if (st != nullptr) Guestfs().free_statns(st);
  }
  return indexes;
}

}  // namespace

Result<SourceDescription> GuestfsSource::Read(ImportSink& sink) {
  SourceDescription description;
  const auto start = std::chrono::steady_clock::now();
  sink.Stage("starting the libguestfs appliance");
  Appliance::Options launch;
  launch.drives = options_.drives;
  launch.interrupted = options_.interrupted;
  launch.say = [&](std::string_view line) { sink.Say(line); };
  ASSIGN_OR_RETURN(const auto appliance, Appliance::Launch(std::move(launch)));
  description.appliance_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  sink.Stage("inspecting the disk");
  const auto up = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const auto opened, OpenEncrypted(*appliance, options_.keys, sink));
  ASSIGN_OR_RETURN(Inspection inspection, InspectDisk(*appliance, opened, options_.skip_unreadable, sink));
  TRY(MountAll(*appliance, inspection, options_.skip_unreadable, sink));
  description.inspection = DescribeSystem(*appliance, inspection, sink);
  description.disks = inspection.disks;
  description.inspection_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - up).count();

  // What a disk without a root has for its top directory; a root's own attributes replace it.
  Entry top;
  top.type = FileType::kDirectory;
  top.mode = 0755;
  TRY(sink.Add("", top, {}, ""));
  for (const MountPlan& plan : inspection.mounts) {
    description.mounts.push_back({plan.path, plan.filesystem, plan.device});
    struct guestfs_statvfs* const space = Guestfs().statvfs(appliance->handle(), plan.path.c_str());
    if (space == nullptr) continue;  // for the progress bar alone
    sink.Expect(static_cast<uint64_t>((space->blocks - space->bfree) * space->frsize));
    Guestfs().free_statvfs(space);
  }
  std::sort(description.mounts.begin(), description.mounts.end(),
            [](const Mount& a, const Mount& b) { return a.path < b.path; });

  const std::map<int64_t, uint32_t> filesystems = AddFilesystems(*appliance, inspection, sink);
  sink.Stage("listing the files");
  if (!inspection.root.empty()) {
    TRY(TreeReading(*appliance, options_, sink, filesystems, "/", "").Run());
    return description;
  }
  for (const MountPlan& plan : inspection.mounts) {
    TRY(TreeReading(*appliance, options_, sink, filesystems, plan.path, plan.path.substr(1)).Run());
  }
  return description;
}

}  // namespace mirage
