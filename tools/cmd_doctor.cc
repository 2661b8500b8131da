#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "indexer/acceleration.h"
#include "indexer/appliance.h"
#include "indexer/reader_process.h"
#include "mirfs/overlay.h"
#include "store/gc.h"
#include "store/session.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kApplianceBytes = uint64_t{600}
                                     << 20;  // what libguestfs keeps of its appliance, and makes for a launch
constexpr uint64_t kLibraryBytes = uint64_t{64} << 20;  // below that the library cannot even collect in comfort

std::string FindProgram(std::string_view name) {
  const char* const path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const std::string_view directory = rest.substr(0, rest.find(':'));
    const std::string file = fmt::format("{}/{}", directory, name);
    if (access(file.c_str(), X_OK) == 0) return file;
    rest.remove_prefix(std::min(directory.size() + 1, rest.size()));
  }
  return {};
}

// The files of shared libraries, whose names carry their versions.
std::string LibraryVersions() {
  std::set<std::string> files;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t slash = line.rfind('/');
    if (slash == std::string::npos) continue;
    const std::string name = line.substr(slash + 1);
    for (const char* wanted :
         {"librocksdb", "libguestfs", "libfuse3", "libzstd", "libcrypto", "libarchive", "libyaml-cpp"}) {
      if (name.starts_with(wanted)) files.insert(name);
    }
  }
  std::string out;
  for (const std::string& file : files) out += (out.empty() ? "" : " ") + file;
  return out;
}

class Doctor {
 public:
  explicit Doctor(Session& session) : session_(session) {}

  void Run(bool launch) {
    System();
    Fuse();
    LibraryState();
    ApplianceState(launch);
  }
  bool missing() const { return missing_; }

 private:
  enum State { kOk, kNote, kMissing };
  void Say(State state, std::string_view what, std::string_view text) {
    static constexpr const char* kWords[] = {"ok", "note", "missing"};
    missing_ = missing_ || state == kMissing;
    if (session_.json) {
      Json json;
      json["check"] = what;
      json["state"] = kWords[state];
      AddText(json, "text", text);
      session_.out->Object(json);
    } else {
      session_.out->Line(session_.out->Fit(fmt::format("{:<8}{}: {}", kWords[state], what, text)));
    }
  }

  void System() {
    utsname name{};
    uname(&name);
    std::string distribution = "unknown distribution";
    std::ifstream release("/etc/os-release");
    for (std::string line; std::getline(release, line);) {
      if (line.starts_with("PRETTY_NAME=")) distribution = line.substr(12);
    }
    Say(kOk, "system",
        fmt::format("{}, {} {}, {} processors, user {}", distribution, name.sysname, name.release,
                    sysconf(_SC_NPROCESSORS_ONLN), geteuid()));
    Say(kOk, "libraries", LibraryVersions());
    const std::string reader = FindDiskReader();
    const bool found = reader.find('/') != std::string::npos || !FindProgram(reader).empty();
    Say(found ? kOk : kMissing, "disk reader",
        found ? reader : "mirage-disk-reader is neither beside this program nor on PATH: reinstall mirage");
  }

  void Fuse() {
    const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
      close(device);
      Say(kOk, "fuse", "/dev/fuse can be opened");
    } else {
      Say(kMissing, "fuse",
          fmt::format("/dev/fuse: {}; load the module fuse, or give the container the device", strerror(errno)));
    }
    const std::string program = FindProgram("fusermount3");
    const bool needed = geteuid() != 0;
    Say(!program.empty() ? kOk
        : needed         ? kMissing
                         : kNote,
        "fusermount3", !program.empty() ? program : "not found; users other than root cannot mount: install fuse3");
    bool allowed = false;
    std::ifstream configuration("/etc/fuse.conf");
    for (std::string line; std::getline(configuration, line);) allowed = allowed || line == "user_allow_other";
    Say(allowed || !needed ? kOk : kNote, "allow_other",
        allowed  ? "user_allow_other is set in /etc/fuse.conf"
        : needed ? "user_allow_other is not set in /etc/fuse.conf: only root can mount with -o allow_other"
                 : "root needs no user_allow_other");
  }

  void Space(std::string_view what, const std::string& directory, uint64_t wanted) {
    struct statvfs space {};
    if (statvfs(directory.c_str(), &space) != 0) {
      Say(kMissing, what, fmt::format("{}: {}", directory, strerror(errno)));
      return;
    }
    const uint64_t free_bytes = space.f_bavail * space.f_frsize;
    Say(free_bytes >= wanted ? kOk : kNote, what,
        fmt::format("{} free in {}{}", FormatSize(free_bytes), directory,
                    free_bytes >= wanted ? "" : fmt::format("; that is less than {}", FormatSize(wanted))));
  }

  void LibraryState() {
    const std::string& path = session_.library_path;
    if (!fs::exists(path + "/FORMAT")) {
      Say(kNote, "library", fmt::format("none at {}; `mirage init` makes one, -L names another", path));
      return;
    }
    Space("library space", path, kLibraryBytes);
    Env& env = Env::Default();
    const auto sessions = LiveSessions(env, path + "/locks/sessions");
    auto library = session_.Open();
    if (!library) {
      Say(kMissing, "library", library.error().message);
    } else {
      const auto branches = (*library)->snapshot()->Branches();
      Say(kOk, "library",
          fmt::format("{}: {} branches, record {} of refs.log, collected {} times", path,
                      branches ? branches->size() : 0, (*library)->snapshot()->sequence(),
                      (*library)->snapshot()->generation()));
      if (const auto overlays = ListOverlays(**library); overlays && !overlays->empty()) {
        Say(kNote, "overlays", fmt::format("{} edits in progress or left: `mirage overlay list`", overlays->size()));
      }
    }
    if (sessions) {
      std::string words;
      for (const SessionInfo& session : *sessions) words += (words.empty() ? "" : "; ") + session.words;
      Say(kOk, "in use by", words.empty() ? "nobody else" : words);
    }
    // A directory whose lock can be taken is a dead writer's.
    size_t alive = 0, dead = 0;
    if (const auto names = env.List(path + "/staging")) {
      for (const std::string& name : *names) {
        const auto lock =
            FileLock::Acquire(env, fmt::format("{}/staging/{}/lock", path, name), LockMode::kShared, 0, "doctor");
        ++(lock ? dead : alive);
      }
    }
    if (alive > 0) Say(kOk, "writers", fmt::format("{} at work", alive));
    if (dead > 0) Say(kNote, "writers", fmt::format("{} that died left files, which the next writer removes", dead));
    const auto reserve = env.Stat(path + "/reserve");
    Say(reserve ? kOk : kNote, "reserve",
        reserve ? "in place" : "missing: on a full disk gc could not run; it makes a new one when it has room");
    if (fs::exists(path + "/quarantine")) {
      Say(kNote, "quarantine", fmt::format("{}/quarantine holds what a repair put aside; look, then remove it", path));
    }
  }

  void ApplianceState(bool launch) {
    std::string qemu;
    for (const char* name : {"qemu-system-x86_64", "qemu-system-aarch64", "qemu-kvm"}) {
      if (qemu.empty()) qemu = FindProgram(name);
    }
    if (qemu.empty() && access("/usr/libexec/qemu-kvm", X_OK) == 0) qemu = "/usr/libexec/qemu-kvm";
    Say(qemu.empty() ? kMissing : kOk, "qemu",
        qemu.empty() ? "no qemu-system-... on PATH: disks but raw ext2/3/4 and FAT ones cannot be read; install qemu-system"
                     : qemu);
    std::string kernel;
    bool unreadable = false;
    std::error_code ignored;
    for (const auto& file : fs::directory_iterator("/boot", ignored)) {
      const std::string name = file.path().filename();
      if (!name.starts_with("vmlinuz-") || !fs::is_directory("/lib/modules/" + name.substr(8), ignored)) continue;
      if (access(file.path().c_str(), R_OK) == 0) {
        kernel = file.path();
      } else {
        unreadable = true;
      }
    }
    const bool given = std::getenv("SUPERMIN_KERNEL") != nullptr || std::getenv("LIBGUESTFS_PATH") != nullptr;
    Say(!kernel.empty() || given ? kOk : kMissing, "appliance kernel",
        !kernel.empty() ? kernel
        : given         ? "given by SUPERMIN_KERNEL or LIBGUESTFS_PATH"
        : unreadable    ? "kernels in /boot are readable by root alone: chmod +r them, or run as root"
                        : "no kernel with its modules in /boot: install linux-image-cloud-amd64 or another");
    const char* const cache = std::getenv("LIBGUESTFS_CACHEDIR");
    const char* const temporary = std::getenv("TMPDIR");
    Space("appliance space", cache != nullptr ? cache : temporary != nullptr ? temporary : "/var/tmp", kApplianceBytes);
    const std::string why = ProbeHardwareAcceleration();
    Say(why.empty() ? kOk : kNote, "acceleration",
        why.empty() ? "a guest of /dev/kvm runs at the processor's speed"
                    : fmt::format("none ({}): the appliance is emulated, some ten times slower", why));
    if (!launch) return;
    const std::string image = fs::temp_directory_path(ignored) / fmt::format("mirage-doctor-{}.raw", getpid());
    {
      const int file = open(image.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
      if (file < 0 || ftruncate(file, 1 << 20) != 0) {
        Say(kMissing, "launch", fmt::format("{}: {}", image, strerror(errno)));
        if (file >= 0) close(file);
        return;
      }
      close(file);
    }
    Appliance::Options options;
    options.drives = {{.path = image, .format = "raw"}};
    options.say = [this](std::string_view line) { Say(kNote, "launch", line); };
    const auto start = std::chrono::steady_clock::now();
    const auto appliance = Appliance::Launch(std::move(options));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    unlink(image.c_str());
    Say(appliance ? kOk : kMissing, "launch",
        appliance ? fmt::format("the appliance is up after {:.1f} s", seconds) : appliance.error().message);
  }

  Session& session_;
  bool missing_ = false;
};

}  // namespace

Action DeclareDoctor(Options& options) {
  auto launch = std::make_shared<bool>(false);
  options.Flag("--launch", *launch, "also start the appliance, which takes some 15 s without hardware acceleration");
  return [launch](Session& session) -> Result<int> {
    Doctor doctor(session);
    doctor.Run(*launch);
    return doctor.missing() ? kExitFailed : kExitDone;
  };
}

}  // namespace mirage
