#include "indexer/guestfs_source.h"

#include <fcntl.h>
#include <guestfs.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "indexer/tar_stream.h"

namespace mirage {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kPipeBytes = 1 << 20;

void CloseIfOpen(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

std::string Join(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  if (name.empty()) return std::string(directory);
  return fmt::format("{}/{}", directory, name);
}

uint64_t HashPath(std::string_view path) { return XXH3_64bits(path.data(), path.size()); }

}  // namespace

// Reads the tree below one directory of the appliance into the version's directory `prefix`.
class GuestfsSource::TreeReading {
 public:
  TreeReading(Appliance& appliance, const Options& options, ImportSink& sink, std::string directory, std::string prefix)
      : appliance_(appliance),
        options_(options),
        sink_(sink),
        directory_(std::move(directory)),
        prefix_(std::move(prefix)),
        names_file_(options.scratch + "/names") {}
  ~TreeReading() { unlink(names_file_.c_str()); }
  TreeReading(const TreeReading&) = delete;
  TreeReading& operator=(const TreeReading&) = delete;

  Status Run() {
    TRY(ListNames());
    TRY(StreamFiles());
    return AddMissing();
  }

 private:
  // All names, as find(1) in the appliance sees them; what the stream does not bring is looked at afterwards. 8 bytes
  // a name.
  Status ListNames() {
    if (guestfs_find0(appliance_.handle(), directory_.c_str(), names_file_.c_str()) != 0) {
      return appliance_.Failed("cannot list the files");
    }
    TRY(ForEachName([&](const std::string& name) {
      hashes_.push_back(HashPath(name));
      return Status{};
    }));
    std::sort(hashes_.begin(), hashes_.end());
    seen_.assign(hashes_.size(), false);
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

  size_t IndexOf(std::string_view name) const {
    const uint64_t hash = HashPath(name);
    const auto found = std::lower_bound(hashes_.begin(), hashes_.end(), hash);
    return found != hashes_.end() && *found == hash ? static_cast<size_t>(found - hashes_.begin()) : hashes_.size();
  }

  // Those of the patterns that tar takes in the same sense: its own match at any '/', and begin with "./". libguestfs
  // hands them over in a file, a line each. What is not passed on, the sink drops.
  std::vector<std::string> TarPatterns() const {
    std::vector<std::string> out;
    for (std::string pattern : options_.exclude) {
      const bool in_a_line = pattern.find_first_of("\n\r") == std::string::npos;
      if (!in_a_line || pattern.back() == ' ' || pattern.back() == '\t') continue;
      if (pattern[0] == '/' && !prefix_.empty()) {
        if (!pattern.starts_with("/" + prefix_ + "/")) continue;
        pattern.erase(0, prefix_.size() + 1);
      }
      out.push_back(pattern[0] == '/' ? "." + pattern : pattern);
    }
    return out;
  }

  // One tar of everything, made in the appliance by a thread of its own, read from a pipe here.
  Status StreamFiles() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "cannot make a pipe");
    fcntl(ends[0], F_SETPIPE_SZ, kPipeBytes);
    std::vector<std::string> patterns = TarPatterns();
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
      sent = guestfs_tar_out_opts_argv(appliance_.handle(), directory_.c_str(), place.c_str(), &arguments);
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
      if (const size_t index = IndexOf(member.path); index < seen_.size()) seen_[index] = true;
      if (member.sparse) return Fail(EIO, "/{} came as a sparse member, which was not asked for", member.path);
      const FileType type = member.entry.type;
      if (type == FileType::kFifo || type == FileType::kCharDevice || type == FileType::kBlockDevice) {
        specials_.push_back(member.path);
      }
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

  // What tar(1) does not tell: sockets, which it leaves out, and which fifos and devices are hard links to each
  // other. They are asked for by directory. Any other name that find(1) saw and tar did not bring is an error:
  // nothing is lost in silence.
  struct Question {
    std::string name;
    bool brought;  // by the stream; only its links are in question
  };
  Status AddMissing() {
    std::map<std::string, std::vector<Question>> questions;
    const auto ask = [&](const std::string& path, bool brought) {
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) {
        questions[""].push_back({path, brought});
      } else {
        questions[path.substr(0, slash)].push_back({path.substr(slash + 1), brought});
      }
    };
    for (const std::string& path : specials_) ask(path, true);
    TRY(ForEachName([&](const std::string& name) -> Status {
      const size_t index = IndexOf(name);
      if (index < seen_.size() && !seen_[index] && !sink_.Excluded(Join(prefix_, name))) ask(name, false);
      return {};
    }));
    for (auto& [directory, asked] : questions) TRY(Answer(directory, asked));
    return {};
  }

  Status Answer(const std::string& directory, std::vector<Question>& asked) {
    const std::string guest = Join(directory_ == "/" ? "" : directory_, directory);
    const std::string place = guest.starts_with('/') ? guest : "/" + guest;
    std::vector<char*> names;
    for (Question& question : asked) names.push_back(question.name.data());
    names.push_back(nullptr);
    const std::unique_ptr<guestfs_statns_list, void (*)(guestfs_statns_list*)> stats(
        guestfs_lstatnslist(appliance_.handle(), place.c_str(), names.data()), guestfs_free_statns_list);
    if (!stats) return appliance_.Failed(fmt::format("/{} cannot be read", Join(prefix_, directory)));
    const std::unique_ptr<guestfs_xattr_list, void (*)(guestfs_xattr_list*)> attributes(
        guestfs_lxattrlist(appliance_.handle(), place.c_str(), names.data()), guestfs_free_xattr_list);
    if (!attributes) return appliance_.Failed(fmt::format("/{} cannot be read", Join(prefix_, directory)));

    // The attributes come as one list: for each name an element without name whose value is a number, then so many.
    uint32_t position = 0;
    for (size_t i = 0; i < asked.size(); ++i) {
      const std::string path = Join(prefix_, Join(directory, asked[i].name));
      if (i >= stats->len || position >= attributes->len) {
        return Fail(EIO, "/{}: the appliance gives no attributes", path);
      }
      const struct guestfs_statns& st = stats->val[i];
      XattrSet xattrs;
      const guestfs_xattr& head = attributes->val[position++];
      const auto count = std::strtoul(std::string(head.attrval, head.attrval_len).c_str(), nullptr, 10);
      for (unsigned long j = 0; j < count; ++j) {
        if (position >= attributes->len) return Fail(EIO, "/{}: the appliance gives no attributes", path);
        const guestfs_xattr& attribute = attributes->val[position++];
        xattrs.emplace(attribute.attrname, std::string(attribute.attrval, attribute.attrval_len));
      }
      if (st.st_ino < 0 || (!asked[i].brought && !S_ISSOCK(st.st_mode))) {
        return Fail(EIO, "/{} was listed, but not read", path);
      }
      if (st.st_nlink > 1) {
        const auto [first, is_first] = firsts_.try_emplace({st.st_dev, st.st_ino}, path);
        if (!is_first) {
          TRY(sink_.AddLink(path, first->second));
          continue;
        }
      }
      if (asked[i].brought) continue;
      Entry entry;
      entry.type = FileType::kSocket;
      entry.mode = static_cast<uint16_t>(st.st_mode & 07777);
      entry.uid = static_cast<uint32_t>(st.st_uid);
      entry.gid = static_cast<uint32_t>(st.st_gid);
      entry.mtime_sec = st.st_mtime_sec;
      entry.mtime_nsec = static_cast<uint32_t>(st.st_mtime_nsec);
      TRY(sink_.Add(path, std::move(entry), xattrs, ""));
    }
    return {};
  }

  Appliance& appliance_;
  const Options& options_;
  ImportSink& sink_;
  const std::string directory_, prefix_, names_file_;
  std::vector<uint64_t> hashes_;  // of all names, sorted
  std::vector<bool> seen_;        // which of them the stream has brought
  std::vector<std::string> specials_;  // fifos and devices that it has brought
  std::map<std::pair<int64_t, int64_t>, std::string> firsts_;  // of sockets, fifos and devices with several names
};

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
  ASSIGN_OR_RETURN(const auto opened, OpenEncrypted(*appliance, options_.keys, sink));
  ASSIGN_OR_RETURN(Inspection inspection, InspectDisk(*appliance, opened, options_.skip_unreadable, sink));
  TRY(MountAll(*appliance, inspection, options_.skip_unreadable, sink));
  description.inspection = DescribeSystem(*appliance, inspection, sink);
  description.disks = inspection.disks;

  // What a disk without a root has for its top directory; a root's own attributes replace it.
  Entry top;
  top.type = FileType::kDirectory;
  top.mode = 0755;
  TRY(sink.Add("", top, {}, ""));
  for (const MountPlan& plan : inspection.mounts) {
    description.mounts.push_back({plan.path, plan.filesystem, plan.device});
    struct guestfs_statvfs* const space = guestfs_statvfs(appliance->handle(), plan.path.c_str());
    if (space == nullptr) continue;  // for the progress bar alone
    sink.Expect(static_cast<uint64_t>((space->blocks - space->bfree) * space->frsize));
    guestfs_free_statvfs(space);
  }
  std::sort(description.mounts.begin(), description.mounts.end(),
            [](const Mount& a, const Mount& b) { return a.path < b.path; });

  sink.Stage("listing the files");
  if (!inspection.root.empty()) {
    TRY(TreeReading(*appliance, options_, sink, "/", "").Run());
    return description;
  }
  for (const MountPlan& plan : inspection.mounts) {
    TRY(TreeReading(*appliance, options_, sink, plan.path, plan.path.substr(1)).Run());
  }
  return description;
}

}  // namespace mirage
