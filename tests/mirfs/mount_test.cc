// The mirfs program: its words when it cannot mount, whom it serves, and what its readers see and are told.
#include "mirfs/mount.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <iterator>
#include <sstream>
#include <thread>

#include "mirfs/committer.h"
#include "mirfs/mount_status.h"
#include "tests/mirfs/mount_fixture.h"

namespace mirage::testing {
namespace {

TEST_F(MountTest, SaysWhyItCannotMount) {
  const auto fails = [&](const std::string& line, int status, const std::string& words) {
    const Shell shell = RunShell(line);
    EXPECT_EQ(shell.status, status) << line << "\n" << shell.out;
    EXPECT_TRUE(shell.out.starts_with("mirfs: ")) << shell.out;
    EXPECT_NE(shell.out.find(words), std::string::npos) << shell.out;
    EXPECT_EQ(shell.out.find('\n'), std::string::npos) << shell.out;
  };
  const std::string mirfs = Mirfs("").substr(0, Mirfs("").find(' ')) + " ";
  fails(mirfs + directory_ / "none" + " " + mountpoint(), 1, "no library");
  fails(mirfs + source() + " " + mountpoint(), 1, "library");
  fails(mirfs + path() + " " + directory_ / "none", 1, "mkdir");
  fails(mirfs + path() + " " + source() + "/etc/motd", 1, "not a directory");
  fails(Mirfs("edit=none"), 1, "no such branch");
  fails(Mirfs("resume=none"), 1, "none");
  fails(Mirfs("sparkling"), 2, "sparkling");
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
  EXPECT_NE(RunShell("mountpoint -q " + mountpoint()).status, 0);
}

TEST_F(MountTest, GoesToTheBackgroundWhenItIsReady) {
  MustRun(Mirfs(""));
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/debian/v1/etc/motd"), "hello");
  const Shell again = RunShell(Mirfs(""));
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.out.find("busy"), std::string::npos) << again.out;
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
}

// The options of the mount as the kernel has them: nosuid and nodev unless root says otherwise.
TEST_F(MountTest, IsNosuidAndNodevUnlessRootSaysSystem) {
  const std::string options = "findmnt -n -o VFS-OPTIONS " + mountpoint();
  const std::string unmount = "umount " + mountpoint() + " || fusermount3 -u " + mountpoint();
  MustRun(Mirfs("suid,dev"));
  EXPECT_EQ(MustRun(options), "ro,nosuid,nodev,relatime");
  MustRun(unmount);
  if (geteuid() != 0) return;
  MustRun(Mirfs("system"));
  EXPECT_EQ(MustRun(options), "ro,relatime");
  MustRun(unmount);
}

TEST_F(MountTest, ShowsABranchOrAVersionAtTheMountPoint) {
  ImportSource("other");
  MustRun("echo more > " + source() + "/etc/motd");
  ImportSource("debian");
  const std::string unmount = "umount " + mountpoint() + " || fusermount3 -u " + mountpoint();
  MustRun(Mirfs("branch=debian"));
  EXPECT_EQ(MustRun("cd " + mountpoint() + " && ls && cat v1/etc/motd latest/etc/motd"), "latest\nv1\nv2\nhello\nmore");
  MustRun("echo third > " + source() + "/etc/motd");
  ImportSource("debian");
  EXPECT_TRUE(Within10s("grep third " + mountpoint() + "/latest/etc/motd"));
  MustRun(unmount);
  MustRun(Mirfs("version=debian/v1,uid=12,gid=34"));
  EXPECT_EQ(MustRun("cd " + mountpoint() + " && ls -A && cat etc/motd && stat -c %u:%g . etc/motd"),
            "etc\nhello\n12:34\n12:34");
  EXPECT_NE(RunShell("ls " + mountpoint() + "/.mirage").status, 0);
  MustRun(unmount);
  EXPECT_NE(RunShell(Mirfs("version=debian/v9")).out.find("debian/v9"), std::string::npos);
  EXPECT_NE(RunShell(Mirfs("branch=none")).out.find("no such branch"), std::string::npos);
}

// Eight times as much is read as the cache may hold, after which it holds no more than that.
TEST_F(MountTest, TheCacheKeepsItsSize) {
  MustRun("head -c 16M /dev/urandom > " + source() + "/big");
  ImportSource("debian");
  for (const auto& [options, most] : {std::pair("cache=2M", size_t{2} << 20), std::pair("version=debian/v2", size_t{256} << 20)}) {
    MustRun(Mirfs(options));
    MustRun("cmp " + source() + "/big " + mountpoint() + (std::string(options) == "cache=2M" ? "/debian/v2" : "") + "/big");
    const auto mounts = Must(ListMounts(*library_));
    ASSERT_EQ(mounts.size(), 1u);
    EXPECT_EQ(mounts[0].shows, std::string(options) == "cache=2M" ? "all versions" : "version debian/v2");
    EXPECT_LE(mounts[0].cache_bytes, most);
    EXPECT_GT(mounts[0].cache_bytes, most == size_t{2} << 20 ? 0u : size_t{8} << 20);
    EXPECT_GT(mounts[0].cache_misses, 0u);
    MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  }
}

TEST_F(MountTest, OthersSeeItOnlyWithAllowOtherAndByItsModes) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be somebody else";
  MustRun("chmod 755 " + directory_.path() + " " + mountpoint() + " && cd " + source() +
          " && echo secret > etc/shadow && chmod 600 etc/shadow && chmod 644 etc/motd && chmod 755 . etc && "
          "echo listed > etc/listed && chmod 600 etc/listed && setfacl -m u:65534:r etc/listed");
  ImportSource("debian");
  const std::string other = "cd / && setpriv --reuid=65534 --regid=65534 --clear-groups ";
  const std::string unmount = "umount " + mountpoint();
  MustRun(Mirfs(""));
  EXPECT_NE(RunShell(other + "ls " + mountpoint()).status, 0);
  MustRun(unmount);
  MustRun(Mirfs("allow_other"));
  EXPECT_EQ(MustRun(other + "cat " + mountpoint() + "/debian/v2/etc/motd"), "hello");
  const std::string third = "cd / && setpriv --reuid=65533 --regid=65533 --clear-groups ";
  for (const std::string& denied : {other + "cat " + mountpoint() + "/debian/v2/etc/shadow",
                                    third + "cat " + mountpoint() + "/debian/v2/etc/listed"}) {
    EXPECT_NE(RunShell(denied).out.find("Permission denied"), std::string::npos) << denied;
  }
  EXPECT_EQ(MustRun(other + "cat " + mountpoint() + "/debian/v2/etc/listed"), "listed");
  MustRun(unmount);
  // Modes are checked in a mount of its user alone too, if that is asked for. Root may pass them all.
  MustRun(Mirfs("default_permissions"));
  EXPECT_NE(MustRun("findmnt -no FS-OPTIONS " + mountpoint()).find("default_permissions"), std::string::npos);
  MustRun(unmount);
  MustRun(Mirfs("allow_other,uid=65534"));
  EXPECT_EQ(MustRun(other + "cat " + mountpoint() + "/debian/v2/etc/shadow"), "secret");
  MustRun(unmount);
}

// What systemd listens on for a service of Type=notify.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& path) : socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~NotifySocket() { close(socket_); }
  // The next that is said; "": nothing for ten seconds.
  std::string Told() const {
    char text[100];
    pollfd wait{.fd = socket_, .events = POLLIN, .revents = 0};
    const ssize_t got = poll(&wait, 1, 10'000) == 1 ? recv(socket_, text, sizeof text, 0) : 0;
    return std::string(text, static_cast<size_t>(std::max<ssize_t>(got, 0)));
  }

 private:
  const int socket_;
};

// As systemd starts it: Type=notify. Stopping is SIGTERM.
TEST_F(MountTest, TellsTheServiceManager) {
  const std::string socket_path = directory_ / "notify";
  const NotifySocket notify(socket_path);
  ASSERT_EQ(setenv("NOTIFY_SOCKET", socket_path.c_str(), 1), 0);
  Start("");
  unsetenv("NOTIFY_SOCKET");
  EXPECT_EQ(notify.Told(), "READY=1");
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/debian/v1/etc/motd"), "hello");
  kill(daemon_, SIGTERM);
  EXPECT_EQ(notify.Told(), "STOPPING=1");
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_NE(RunShell("mountpoint -q " + mountpoint()).status, 0);
}

// The unit's own command, with no more changed than its three paths, started and stopped as systemd does it.
TEST_F(MountTest, TheExampleUnitStartsAndStopsAMount) {
  if (geteuid() != 0) GTEST_SKIP() << "a system service is root's";
  const char* tree = std::getenv("MIRAGE_SOURCE");
  const std::string unit = std::string(tree ? tree : ".") + "/examples/mirfs.service";
  const auto setting = [&](const std::string& key) { return MustRun("sed -n 's/^" + key + "=//p' " + unit); };
  EXPECT_EQ(setting("Type"), "notify");
  // Nothing else makes the process what it is, or stops it: no settings but these, and no word that systemd would replace.
  const std::string settings = "grep -E '^(Exec|Environment|User|Group|Working|Root|KillSignal)' " + unit;
  EXPECT_EQ(RunShell(settings + " | grep -v ^ExecStart=").out, "");
  const std::string command = setting("ExecStart");
  EXPECT_EQ(command.find_first_of("%$\"'\\;\n"), std::string::npos) << command;
  std::istringstream given(command);
  std::vector<std::string> words(std::istream_iterator<std::string>(given), {});
  ASSERT_GE(words.size(), 3u) << command;
  EXPECT_TRUE(words[0].starts_with('/') && words[0].ends_with("/mirfs")) << words[0];
  EXPECT_EQ(setting("RequiresMountsFor"), words[1] + " " + words[2]);
  words[0] = Mirfs("").substr(0, Mirfs("").find(' '));
  words[1] = path();
  words[2] = mountpoint();

  const std::string socket_path = directory_ / "notify";
  const NotifySocket notify(socket_path);
  std::vector<std::string> environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
                                          "NOTIFY_SOCKET=" + socket_path};
  for (const std::string name : {"ASAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name.c_str())) environment.push_back(name + "=" + value);
  }
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (std::string& text : texts) all.push_back(text.data());
    all.push_back(nullptr);
    return all;
  };
  const auto argv = pointers(words), envp = pointers(environment);
  daemon_ = fork();
  if (daemon_ == 0) {
    if (chdir("/") == 0 && freopen("/dev/null", "r", stdin) && freopen(log().c_str(), "a", stderr)) {
      execve(argv[0], argv.data(), envp.data());
    }
    _exit(127);
  }
  EXPECT_EQ(notify.Told(), "READY=1");
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/debian/latest/etc/motd"), "hello");
  EXPECT_NE(MustRun("findmnt -no FS-OPTIONS " + mountpoint()).find("allow_other"), std::string::npos);
  kill(daemon_, SIGTERM);
  EXPECT_EQ(notify.Told(), "STOPPING=1");
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_NE(RunShell("mountpoint -q " + mountpoint()).status, 0);
}

TEST_F(MountTest, LogsLibraryVersionAndPathOfWhatCannotBeRead) {
  MustRun("for pack in " + path() + "/packs/*.pack; do printf damaged | dd of=$pack bs=1 seek=100 conv=notrunc; done");
  Start("");
  const Shell cat = RunShell("cat " + mountpoint() + "/debian/v1/etc/motd");
  EXPECT_NE(cat.out.find("Input/output error"), std::string::npos) << cat.out;
  EXPECT_NE(MustRun("cat " + log()).find("library " + path() + ", version debian/v1, path /etc/motd: "),
            std::string::npos)
      << MustRun("cat " + log());
  kill(daemon_, SIGTERM);
  EXPECT_EQ(WaitForEnd(), 0);
  Start("edit=debian");
  EXPECT_NE(RunShell("cat " + mountpoint() + "/etc/motd").out.find("Input/output error"), std::string::npos);
  EXPECT_NE(MustRun("cat " + log()).find("library " + path() + ", branch debian, overlay " + OverlayId() +
                                         ", version debian/v1, path /etc/motd: "),
            std::string::npos)
      << MustRun("cat " + log());
  kill(daemon_, SIGTERM);
  EXPECT_EQ(WaitForEnd(), 0);
}

// Another process has the lock under which a version is leased.
TEST_F(MountTest, TheFirstNameOfAVersionWaitsForTheLibrarysLock) {
  using namespace std::chrono_literals;
  constexpr std::chrono::milliseconds kWait = 300ms;
  MustRun("echo more > " + source() + "/etc/motd");
  ImportSource("debian");
  MustRun("echo 'lock_timeout_ms: " + std::to_string(kWait.count()) + "' > " + path() + "/mirage.yaml");
  Start("");
  const std::string branch = mountpoint() + "/debian", v1 = branch + "/v1", v2 = branch + "/v2";
  // At most half of the minute that it is unless set.
  const auto refused = [&](const std::string& line, std::chrono::milliseconds least, std::chrono::milliseconds most = 30s) {
    const auto begin = std::chrono::steady_clock::now();
    const Shell shell = RunShell(line);
    const auto waited = std::chrono::steady_clock::now() - begin;
    EXPECT_NE(shell.status, 0) << line;
    EXPECT_NE(shell.out.find("Resource temporarily unavailable"), std::string::npos) << shell.out;
    EXPECT_GE(waited, least) << line;
    EXPECT_LT(waited, most) << line;
  };
  MustRun("ls " + v2);
  {
    const auto lock = Must(FileLock::Acquire(Env::Default(), path() + "/locks/publish", LockMode::kExclusive, 0, "test"));
    refused("cat " + v1 + "/etc/motd", kWait);
    refused("ls " + v1, kWait);
    refused("for i in $(seq 20); do stat " + v1 + "/$i & done; wait; stat " + v1 + "/one", 2 * kWait, 20 * kWait);
    EXPECT_EQ(MustRun("cd " + branch + " && ls && readlink latest && stat -c %F v1 && cat v2/etc/motd"),
              "latest\nv1\nv2\nv2\ndirectory\nmore");
  }
  EXPECT_EQ(MustRun("cat " + v1 + "/etc/motd"), "hello");
}

TEST_F(MountTest, AnOpenHandleDoesNotOutliveTheDaemon) {
  Start("");
  const int file = open((mountpoint() + "/debian/v1/etc/motd").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  kill(daemon_, SIGKILL);
  waitpid(std::exchange(daemon_, -1), nullptr, 0);
  char byte;
  EXPECT_EQ(read(file, &byte, 1), -1);
  EXPECT_EQ(errno, ENOTCONN);
  close(file);
  EXPECT_EQ(RunShell("umount " + mountpoint() + " || fusermount3 -u " + mountpoint()).status, 0);
}

// The kernel would believe the reader's refs for an hour: it is told, or never sees. A busy machine has three tries.
TEST_F(MountTest, AReaderSeesWhatAnEditCommittedWithinASecond) {
  VersionsFs::Options options;
  options.refs_timeout_s = 3600;
  const InProcessMount reader(path(), directory_ / "reader", options);
  const std::string branch = directory_ / "reader" + "/debian";
  const std::string latest = "cd " + branch + " && readlink latest && cat latest/etc/motd", list = "ls " + branch;
  std::string seen = "v1\nhello", listed = "latest\nv1";
  bool in_time = false;
  for (const std::string tag : {"v2", "v3", "v4"}) {
    MustRun(Mirfs("edit=debian"));
    MustRun("echo edit " + tag + " > " + mountpoint() + "/etc/motd && sync -f " + mountpoint());
    EXPECT_EQ(MustRun(list), listed);
    EXPECT_EQ(MustRun(latest), seen);
    EXPECT_NE(RunShell("stat " + branch + "/" + tag).status, 0);  // the kernel now remembers that it is missing
    const auto result = Must(ControlUnmount(library_->path(), OverlayId(), {}));
    const auto committed = std::chrono::steady_clock::now();
    ASSERT_TRUE(result.version);
    EXPECT_EQ(result.version->tag, tag);
    seen = tag + "\nedit " + tag;
    listed += "\n" + tag;
    // The listing last: it would tell the kernel of the names.
    EXPECT_TRUE(Within10s("grep -qx 'edit " + tag + "' " + branch + "/" + tag + "/etc/motd"));
    EXPECT_TRUE(Within10s("[ \"$(" + latest + ")\" = '" + seen + "' ]"));
    EXPECT_TRUE(Within10s("[ \"$(" + list + ")\" = '" + listed + "' ]"));
    in_time |= std::chrono::steady_clock::now() - committed < std::chrono::seconds(1);
  }
  EXPECT_TRUE(in_time);
}

}  // namespace
}  // namespace mirage::testing
