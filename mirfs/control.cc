#include "mirfs/control.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "mirfs/overlay.h"

namespace mirage {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxLineBytes = 1 << 20;  // ExcludedPaths::kShown names of any bytes and length
constexpr int kRequestTimeoutMs = 5000;
constexpr char kSocketName[] = "control.sock";
constexpr size_t kMaxUsersNamed = 8;

// Messages and names are bytes; JSON wants UTF-8, so what is not travels as the code points of its bytes, marked.
Json ToJson(const std::string& text) {
  Json value = text;
  try {
    (void)value.dump();
    return value;
  } catch (const Json::exception&) {
    return Json{{"bytes", std::vector<uint8_t>(text.begin(), text.end())}};
  }
}
std::string FromJson(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  const auto bytes = value.at("bytes").get<std::vector<uint8_t>>();
  return {bytes.begin(), bytes.end()};
}
std::string FromJson(const Json& object, const char* key) {
  auto it = object.find(key);
  return it == object.end() ? "" : FromJson(*it);
}

// sockaddr_un holds 107 bytes of path; through the directory's descriptor any library path fits.
Result<sockaddr_un> SocketAddress(int directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", directory, kSocketName);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

Status SendLine(int fd, const Json& message) {
  const std::string line = message.dump() + "\n";
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t n = send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return FailErrno(errno, "control socket");
    sent += static_cast<size_t>(n);
  }
  return {};
}

// timeout_ms -1: as long as it takes.
Result<Json> ReceiveLine(int fd, int timeout_ms) {
  std::string line;
  while (line.empty() || line.back() != '\n') {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&wait, 1, timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return Fail(ETIMEDOUT, "control socket: no request came");
    std::array<char, 4096> buffer;
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "control socket");
    if (n == 0) return Fail(ECONNRESET, "the mount's daemon ended without an answer; see `mirage overlay list`");
    line.append(buffer.data(), static_cast<size_t>(n));
    if (line.size() > kMaxLineBytes) return Fail(EMSGSIZE, "control socket: line too long");
  }
  Json message = Json::parse(line, nullptr, false);
  if (!message.is_object()) return Fail(EPROTO, "control socket: not a message");
  return message;
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string DecodeOctal(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

struct MountLine {
  std::string device, mountpoint, type, source, super_options;
};
std::vector<MountLine> ReadMountInfo() {
  std::vector<MountLine> lines;
  std::ifstream file("/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // id parent major:minor root MOUNTPOINT options [optional...] - TYPE SOURCE SUPER-OPTIONS
    std::istringstream words(line);
    std::vector<std::string> word;
    for (std::string w; words >> w;) word.push_back(w);
    const auto dash = std::find(word.begin(), word.end(), "-");
    if (word.size() < 6 || word.end() - dash < 4) continue;
    lines.push_back({word[2], DecodeOctal(word[4]), dash[1], DecodeOctal(dash[2]), dash[3]});
  }
  return lines;
}

// Resolves all but the last component, which may be a dead mount that cannot be looked at.
std::string CanonicalMountpoint(const std::string& path) {
  std::error_code failed;
  std::filesystem::path whole = std::filesystem::canonical(path, failed);
  if (!failed) return whole;
  std::filesystem::path absolute = std::filesystem::absolute(path).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  const std::filesystem::path parent = std::filesystem::canonical(absolute.parent_path(), failed);
  return failed ? absolute : parent / absolute.filename();
}

bool IsUnder(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

std::string ReadLinkOf(const std::string& path) {
  std::string target(4096, '\0');
  const ssize_t n = readlink(path.c_str(), target.data(), target.size());
  target.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return target;
}

// By the names the links show, never by stat: that could hang on somebody else's dead mount.
bool ProcessUses(const std::string& process, const std::string& mountpoint) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    if (IsUnder(ReadLinkOf(process + link), mountpoint)) return true;
  }
  std::error_code failed;
  for (std::filesystem::directory_iterator it(process + "/fd", failed), end; !failed && it != end;
       it.increment(failed)) {
    if (IsUnder(ReadLinkOf(it->path()), mountpoint)) return true;
  }
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t slash = line.find('/');
    if (slash != line.npos && IsUnder(std::string_view(line).substr(slash), mountpoint)) return true;
  }
  return false;
}

Status RunFusermount(const std::string& mountpoint, bool lazy) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return FailErrno(errno, "pipe");
  const char* arguments[] = {"fusermount3", lazy ? "-uz" : "-u", "--", mountpoint.c_str(), nullptr};
  const pid_t child = fork();
  if (child < 0) {
    const int code = errno;
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return FailErrno(code, "fork");
  }
  if (child == 0) {  // only async-signal-safe calls: other threads may hold any lock
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(pipe_ends[1], 2);
    execvp(arguments[0], const_cast<char* const*>(arguments));
    _exit(127);
  }
  close(pipe_ends[1]);
  std::string said;
  std::array<char, 512> buffer;
  for (ssize_t n; (n = read(pipe_ends[0], buffer.data(), buffer.size())) > 0;)
    said.append(buffer.data(), static_cast<size_t>(n));
  close(pipe_ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return Fail(ENOENT, "{}: fusermount3 is missing; install fuse3", mountpoint);
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return Fail(said.find("busy") != said.npos ? EBUSY : EIO, "{}: {}", mountpoint, said);
}

}  // namespace

Status Unmount(const std::string& mountpoint, bool lazy) {
  if (geteuid() != 0) return RunFusermount(mountpoint, lazy);
  if (umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) return {};
  return FailErrno(errno, mountpoint);
}

bool IsMounted(const std::string& mountpoint, dev_t device) {
  const std::string wanted = fmt::format("{}:{}", major(device), minor(device));
  const auto lines = ReadMountInfo();
  return std::any_of(lines.begin(), lines.end(),
                     [&](const MountLine& line) { return line.device == wanted && line.mountpoint == mountpoint; });
}

std::string DescribeUsers(const std::string& mountpoint) {
  std::string users;
  size_t named = 0, more = 0;
  auto add = [&](const std::string& who) {
    if (named == kMaxUsersNamed) {
      ++more;
      return;
    }
    users += (named++ ? ", " : "") + who;
  };
  std::error_code failed;
  for (std::filesystem::directory_iterator it("/proc", failed), end; !failed && it != end; it.increment(failed)) {
    const std::string pid = it->path().filename();
    if (pid.find_first_not_of("0123456789") != pid.npos || pid == std::to_string(getpid())) continue;
    if (!ProcessUses(it->path(), mountpoint)) continue;
    std::string command;
    std::getline(std::ifstream(it->path() / "comm"), command);
    add(fmt::format("{} (pid {})", command, pid));
  }
  for (const MountLine& line : ReadMountInfo()) {
    if (line.mountpoint != mountpoint && IsUnder(line.mountpoint, mountpoint)) add("a mount on " + line.mountpoint);
  }
  if (more) users += fmt::format(" and {} more", more);
  return users;
}

Result<std::optional<FoundMount>> FindMount(const std::string& mountpoint) {
  const std::string canonical = CanonicalMountpoint(mountpoint);
  std::optional<MountLine> found;
  for (MountLine& line : ReadMountInfo()) {
    if (line.mountpoint == canonical) found = std::move(line);  // the last one covers those before
  }
  if (!found || found->type != "fuse.mirfs") return std::nullopt;
  FoundMount mount{.mountpoint = canonical, .library = found->source, .overlay_id = ""};
  const bool writable = ("," + found->super_options + ",").find(",rw,") != std::string::npos;
  if (!writable) return mount;
  ASSIGN_OR_RETURN(const auto overlays, ListOverlays(Env::Default(), found->source));
  for (const OverlayInfo& overlay : overlays) {
    if (overlay.mountpoint == canonical && (mount.overlay_id.empty() || overlay.mounted)) mount.overlay_id = overlay.id;
  }
  if (mount.overlay_id.empty())
    return Fail(ENOENT, "{}: no overlay of {} says it is mounted there", canonical, found->source);
  return mount;
}

namespace {

// One request to an overlay's daemon and its reply.
Result<Json> Converse(const std::string& library_path, const std::string& overlay_id, const Json& request) {
  const std::string directory = OverlayPath(library_path, overlay_id);
  const int directory_fd = open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) return FailErrno(errno, "overlay " + overlay_id);
  ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(directory_fd));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int code = errno;
    if (fd >= 0) close(fd);
    close(directory_fd);
    return Fail(code, "overlay {}: no daemon answers ({}); see `mirage overlay list`", overlay_id, std::strerror(code));
  }
  close(directory_fd);
  auto reply = [&]() -> Result<Json> {
    TRY(SendLine(fd, request));
    return ReceiveLine(fd, -1);
  }();
  close(fd);
  return reply;
}

// An error that the daemon replied. Not with the codes that say there is none.
Status Replied(const Json& reply) {
  if (!reply.contains("error")) return {};
  try {
    const int code = reply.at("code").get<int>();
    return Fail(code == ENOENT || code == ECONNREFUSED ? EIO : code, "{}", FromJson(reply, "error"));
  } catch (const Json::exception& e) {
    return Fail(EPROTO, "control socket: {}", e.what());
  }
}

}  // namespace

Result<UnmountResult> ControlUnmount(const std::string& library_path, const std::string& overlay_id,
                                     const UnmountRequest& request) {
  const auto answer = Converse(library_path, overlay_id,
                               {{"do", "unmount"},
                                {"message", ToJson(request.message)},
                                {"tag", request.tag},
                                {"author", ToJson(request.author)},
                                {"user", ToJson(request.user)},
                                {"discard", request.discard},
                                {"commit", request.commit}});
  if (!answer) {
    return Fail(answer.error().code, "{}; if overlay {} is there: mirage overlay {} {}", answer.error().message, overlay_id,
                request.discard ? "discard" : "commit", overlay_id);
  }
  const Json& reply = *answer;
  TRY(Replied(reply));
  try {
    UnmountResult result;
    result.discarded = reply.value("discarded", false);
    result.kept = reply.value("kept", false);
    if (reply.contains("version")) {
      const Json& version = reply.at("version");
      const auto manifest = ObjectId::FromHex(version.at("manifest").get<std::string>());
      if (!manifest) return Fail(EPROTO, "control socket: not a manifest id");
      result.version =
          Published{*manifest, version.at("branch").get<std::string>(), version.at("tag").get<std::string>()};
    }
    if (reply.contains("excluded")) {
      const Json& excluded = reply.at("excluded");
      result.excluded.count = excluded.at("count").get<size_t>();
      for (const Json& path : excluded.at("paths")) result.excluded.shown.push_back(FromJson(path));
    }
    return result;
  } catch (const Json::exception& e) {
    return Fail(EPROTO, "control socket: {}", e.what());
  }
}

Result<std::string> ControlView(const std::string& library_path, const std::string& overlay_id) {
  ASSIGN_OR_RETURN(const Json reply, Converse(library_path, overlay_id, {{"do", "view"}}));
  TRY(Replied(reply));
  try {
    return FromJson(reply, "database");
  } catch (const Json::exception& e) {
    return Fail(EPROTO, "control socket: {}", e.what());
  }
}

Result<std::unique_ptr<ControlServer>> ControlServer::Listen(const std::string& directory, OnUnmount on_unmount,
                                                             OnView on_view) {
  auto server = std::unique_ptr<ControlServer>(new ControlServer);
  server->path_ = directory + "/" + kSocketName;
  server->on_unmount_ = std::move(on_unmount);
  server->on_view_ = std::move(on_view);
  if (unlink(server->path_.c_str()) != 0 && errno != ENOENT) return FailErrno(errno, "remove " + server->path_);
  const int directory_fd = open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) return FailErrno(errno, "open " + directory);
  ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(directory_fd));
  server->listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool bound = server->listener_ >= 0 &&
                     bind(server->listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                     listen(server->listener_, 4) == 0;
  const int code = errno;
  close(directory_fd);
  if (!bound) return FailErrno(code, "listen on " + server->path_);
  TRY(ShareLikeItsDirectory(server->path_));
  server->stop_ = eventfd(0, EFD_CLOEXEC);
  server->thread_ = std::thread([raw = server.get()] { raw->Run(); });
  return server;
}

void ControlServer::Run() {
  for (;;) {
    std::array<pollfd, 2> wait{
        {{.fd = stop_, .events = POLLIN, .revents = 0}, {.fd = listener_, .events = POLLIN, .revents = 0}}};
    poll(wait.data(), wait.size(), -1);
    if (wait[0].revents != 0) return;
    if (wait[1].revents == 0) continue;
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) Serve(connection);
  }
}

void ControlServer::Serve(int connection) {
  auto handle = [&]() -> Status {
    ASSIGN_OR_RETURN(const Json message, ReceiveLine(connection, kRequestTimeoutMs));
    try {
      if (message.value("do", "") == "view") {
        ASSIGN_OR_RETURN(const std::string database, on_view_());
        TRY(SendLine(connection, {{"database", ToJson(database)}}));
        close(connection);
        return {};
      }
      if (message.value("do", "") != "unmount") return Fail(EPROTO, "control socket: unknown request");
      {
        std::lock_guard lock(mutex_);
        if (waiting_ >= 0) return Fail(EALREADY, "another unmount of it is under way");
        waiting_ = connection;
      }
      auto status = on_unmount_({.message = FromJson(message, "message"),
                                 .tag = message.value("tag", ""),
                                 .discard = message.value("discard", false),
                                 .author = FromJson(message, "author"),
                                 .commit = message.value("commit", false),
                                 .user = FromJson(message, "user")});
      if (!status) {
        std::lock_guard lock(mutex_);
        waiting_ = -1;
      }
      return status;
    } catch (const Json::exception& e) {
      return Fail(EPROTO, "control socket: {}", e.what());
    }
  };
  const Status status = handle();
  if (status) return;  // answered, or will be by Finish
  (void)SendLine(connection, {{"code", status.error().code}, {"error", ToJson(status.error().message)}});
  close(connection);
}

void ControlServer::Finish(const Result<UnmountResult>& result) {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    if (write(stop_, &one, sizeof one) < 0) syslog(LOG_ERR, "control socket: cannot be stopped: %m");
    thread_.join();
  }
  std::lock_guard lock(mutex_);
  if (waiting_ < 0) return;
  Json reply;
  if (!result) {
    reply = {{"code", result.error().code}, {"error", ToJson(result.error().message)}};
  } else if (result->discarded) {
    reply = {{"discarded", true}};
  } else if (result->kept) {
    reply = {{"kept", true}};
  } else if (result->version) {
    reply = {{"version",
              {{"manifest", result->version->manifest.Hex()},
               {"branch", result->version->branch},
               {"tag", result->version->tag}}}};
  } else {
    reply = {{"unchanged", true}};
  }
  if (result && result->excluded.count > 0) {
    Json paths = Json::array();
    for (const std::string& path : result->excluded.shown) paths.push_back(ToJson(path));
    reply["excluded"] = {{"count", result->excluded.count}, {"paths", std::move(paths)}};
  }
  (void)SendLine(waiting_, reply);
  close(waiting_);
  waiting_ = -1;
}

ControlServer::~ControlServer() {
  if (thread_.joinable()) Finish(Fail(ECANCELED, "the mount ended"));
  if (listener_ >= 0) close(listener_);
  if (stop_ >= 0) close(stop_);
  unlink(path_.c_str());
}

}  // namespace mirage
