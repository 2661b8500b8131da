#include "mirfs/mount_status.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <optional>

#include <nlohmann/json.hpp>

namespace mirage {
namespace {

using Json = nlohmann::json;
constexpr int kAnswerTimeoutMs = 2000;
constexpr size_t kMaxAnswerBytes = 64 << 10;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string DirectoryOf(const Library& library) { return library.path() + "/mounts"; }

// sockaddr_un holds 107 bytes of path; through the directory's descriptor any library's fits.
sockaddr_un AddressIn(int directory, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", directory, name);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

// Paths are bytes, JSON wants UTF-8: each byte travels as the character of that number.
std::string Widen(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return text;
}
std::string Narrow(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte < 0x80 || i + 1 == text.size()) {
      bytes += text[i];
    } else {
      bytes += static_cast<char>((byte & 3) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3f));
    }
  }
  return bytes;
}

std::string Encode(const MountStatus& status) {
  const Json json = {{"mountpoint", Widen(status.mountpoint)},
                     {"shows", Widen(status.shows)},
                     {"user", Widen(status.user)},
                     {"pid", status.pid},
                     {"since", status.since},
                     {"memory_bytes", status.memory_bytes},
                     {"inodes", status.inodes},
                     {"requests", status.requests},
                     {"requests_by_kind", status.requests_by_kind},
                     {"hand_overs", status.hand_overs},
                     {"cache_hits", status.cache_hits},
                     {"cache_misses", status.cache_misses},
                     {"cache_bytes", status.cache_bytes}};
  return json.dump() + "\n";
}

std::optional<MountStatus> Decode(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    MountStatus status;
    status.mountpoint = Narrow(json.at("mountpoint").get<std::string>());
    status.shows = Narrow(json.at("shows").get<std::string>());
    status.user = Narrow(json.at("user").get<std::string>());
    json.at("pid").get_to(status.pid);
    json.at("since").get_to(status.since);
    json.at("memory_bytes").get_to(status.memory_bytes);
    json.at("inodes").get_to(status.inodes);
    json.at("requests").get_to(status.requests);
    json.at("requests_by_kind").get_to(status.requests_by_kind);
    status.hand_overs = json.value("hand_overs", uint64_t{0});
    json.at("cache_hits").get_to(status.cache_hits);
    json.at("cache_misses").get_to(status.cache_misses);
    json.at("cache_bytes").get_to(status.cache_bytes);
    return status;
  } catch (const Json::exception&) {
    return std::nullopt;  // of another version of this program
  }
}

// Nothing: nobody answers there, or not in time.
std::optional<MountStatus> Ask(int directory, const std::string& name) {
  const sockaddr_un address = AddressIn(directory, name);
  const Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return std::nullopt;
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ECONNREFUSED) unlinkat(directory, name.c_str(), 0);  // its daemon is dead
    return std::nullopt;
  }
  std::string answer;
  for (;;) {
    pollfd wait{.fd = fd.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&wait, 1, kAnswerTimeoutMs);
    if (ready < 0 && errno == EINTR) continue;
    std::array<char, 4096> buffer;
    const ssize_t got = ready == 1 ? recv(fd.get(), buffer.data(), buffer.size(), 0) : -1;
    if (got < 0) return std::nullopt;
    if (got == 0) return Decode(answer);
    answer.append(buffer.data(), static_cast<size_t>(got));
    if (answer.size() > kMaxAnswerBytes) return std::nullopt;
  }
}

}  // namespace

uint64_t ResidentBytes() {
  uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

Result<std::vector<MountStatus>> ListMounts(const Library& library) {
  std::vector<MountStatus> mounts;
  const Descriptor directory(open(DirectoryOf(library).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) {
    if (errno == ENOENT) return mounts;  // nothing was ever mounted
    return FailErrno(errno, DirectoryOf(library));
  }
  ASSIGN_OR_RETURN(const auto names, library.env().List(DirectoryOf(library)));
  for (const std::string& name : names) {
    if (auto status = Ask(directory.get(), name)) mounts.push_back(std::move(*status));
  }
  std::sort(mounts.begin(), mounts.end(),
            [](const MountStatus& a, const MountStatus& b) { return a.mountpoint < b.mountpoint; });
  return mounts;
}

Result<std::unique_ptr<MountStatusServer>> MountStatusServer::Listen(const Library& library,
                                                                     std::function<MountStatus()> tell) {
  const std::string path = DirectoryOf(library);
  if (Status made = library.env().MakeDirectory(path, 0700); !made && made.error().code != EEXIST) {
    if (made.error().code == EROFS || made.error().code == EACCES) return nullptr;
    return tl::make_unexpected(std::move(made).error());
  }
  const Descriptor directory(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return FailErrno(errno, path);
  // The time parts processes of one number: of two namespaces, of two boots.
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const std::string name = fmt::format("{}-{}.{:09}", getpid(), now.tv_sec, now.tv_nsec);
  const sockaddr_un address = AddressIn(directory.get(), name);
  Descriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (listener.get() < 0 || bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener.get(), 4) != 0) {
    return FailErrno(errno, fmt::format("listen on {}/{}", path, name));
  }
  TRY(ShareLikeItsDirectory(path + "/" + name));
  auto server = std::unique_ptr<MountStatusServer>(new MountStatusServer);
  server->path_ = path + "/" + name;
  server->tell_ = std::move(tell);
  server->listener_ = listener.Take();
  server->stop_ = eventfd(0, EFD_CLOEXEC);
  server->thread_ = std::thread([raw = server.get()] { raw->Run(); });
  return server;
}

void MountStatusServer::Run() {
  for (;;) {
    std::array<pollfd, 2> wait{
        {{.fd = stop_, .events = POLLIN, .revents = 0}, {.fd = listener_, .events = POLLIN, .revents = 0}}};
    poll(wait.data(), wait.size(), -1);
    if (wait[0].revents != 0) return;
    if (wait[1].revents == 0) continue;
    const Descriptor connection(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (connection.get() < 0) continue;
    const std::string answer = Encode(tell_());  // fits the socket's buffer: no reader can hold this thread up
    if (send(connection.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      syslog(LOG_DEBUG, "mount status: %m");
    }
  }
}

MountStatusServer::~MountStatusServer() {
  const uint64_t one = 1;
  if (write(stop_, &one, sizeof one) < 0) syslog(LOG_ERR, "mount status: cannot be stopped: %m");
  thread_.join();
  unlink(path_.c_str());
  close(listener_);
  close(stop_);
}

}  // namespace mirage
