#include "tests/mirfs/posix_cases.h"

#include <dirent.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <sstream>

namespace mirage::testing {
namespace {

constexpr uid_t kSomebody = 65533, kOther = 65532;

void MakeFile(const std::string& path, const std::string& bytes = "", mode_t mode = 0644) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (file < 0 || write(file, bytes.data(), bytes.size()) < 0 || fchmod(file, mode) != 0) abort();
  close(file);
}
int RenameWith(const char* from, const char* to, unsigned flags) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}
void Become(uid_t user) {
  if (setgroups(0, nullptr) != 0 || setresgid(user, user, user) != 0 || setresuid(user, user, user) != 0) abort();
}

// Runs `body` as another user, in a child whose words go into `log`.
void As(uid_t user, Log& log, const std::function<void(Log&)>& body) {
  int ends[2];
  if (pipe(ends) != 0) abort();
  const pid_t child = fork();
  if (child == 0) {
    if (!alone) Become(user);
    Log own;
    body(own);
    if (write(ends[1], own.text().data(), own.text().size()) < 0) abort();
    _exit(0);
  }
  close(ends[1]);
  std::string said(64 << 10, '\0');
  size_t size = 0;
  for (ssize_t got; (got = read(ends[0], said.data() + size, said.size() - size)) > 0;) size += static_cast<size_t>(got);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  said.resize(size);
  log.Note("as " + std::to_string(user), "\n" + said);
}

void Renames(Log& log) {
  for (const unsigned flags : {0U, 1U, 2U, 3U, 8U}) {
    log.Say("none", RenameWith("none", "x", flags));
    log.Say("file over file", RenameWith("file", "other", flags));
    log.Say("file to new", RenameWith("other", "file", flags));
    log.Say("file over dir", RenameWith("file", "dir", flags));
    log.Say("dir over file", RenameWith("dir", "file", flags));
    log.Say("dir over full", RenameWith("empty", "dir", flags));
    log.Say("into itself", RenameWith("dir", "dir/sub/x", flags));
    log.Say("onto its parent", RenameWith("dir/sub", "dir", flags));
    log.Say("itself", RenameWith("dir", "dir", flags));
    log.Say("links", RenameWith("one", "dir/two", flags));
    for (const char* path : {"file", "other", "dir", "empty", "one", "dir/two", "dir/sub"}) log.Stat(path);
    if (access("file", F_OK) != 0) MakeFile("file");
    if (access("other", F_OK) != 0) MakeFile("other");
  }
  log.Say("dot", rename("dir/.", "y"));
  log.Say("dotdot", rename("dir/..", "y"));
  log.Say("slash", rename("file", "y/"));
  log.Say("dir over empty", rename("dir", "empty"));
  log.Stat("empty/sub/deep");
  log.Say("back", rename("empty", "dir"));
  log.Say("deep up", rename("dir/sub/deep", "deep"));
  log.Stat("dir/sub");
  log.Stat(".");
}

void Links(Log& log) {
  log.Say("link", link("file", "dir/sub/linked"));
  log.Say("third", link("one", "three"));
  log.Stat("three");
  log.Say("exists", link("file", "one"));
  log.Say("dir", link("dir", "dirlink"));
  log.Say("none", link("none", "x"));
  log.Say("symlink", link("symlink", "symlink2"));
  log.Stat("symlink2");
  log.Say("fifo", link("fifo", "dir/fifo2"));
  log.Say("write", truncate("one", 3));
  log.Content("dir/two");
  log.Say("unlink", unlink("one"));
  log.Stat("three");
  log.Say("unlink", unlink("dir/two"));
  log.Stat("three");
  log.Content("three");
  const int file = log.Open("file", O_RDONLY);
  unlink("file");
  unlink("dir/sub/linked");
  struct stat st {};
  fstat(file, &st);
  log.Note("links", std::to_string(st.st_nlink));
  log.Say("link of the unlinked", linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", file).c_str(), AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
}

void MakeAndRemove(Log& log) {
  log.Say("mkdir", mkdir("new", 0777));
  log.Say("mkdir", mkdir("new", 0777));
  log.Say("mkdir", mkdir("file", 0777));
  log.Say("mkdir", mkdir("file/x", 0777));
  log.Say("mkdir", mkdir("none/x", 0777));
  log.Say("mkdir", mkdir("symlink", 0777));
  log.Say("rmdir", rmdir("dir"));
  log.Say("rmdir", rmdir("file"));
  log.Say("rmdir", rmdir("new/."));
  log.Say("rmdir", rmdir("new/.."));
  log.Say("rmdir", rmdir("symlink"));
  log.Say("unlink", unlink("dir"));
  log.Say("unlink", unlink("none"));
  log.Say("unlink", unlink("file/x"));
  log.Say("rmdir", rmdir("new"));
  log.Stat(".");
  log.Say("mkfifo", mkfifo("new", 0640));
  log.Say("mkfifo", mkfifo("file", 0640));
  log.Say("mknod", mknod("device", S_IFCHR | 0600, makedev(1, 3)));
  log.Say("mknod", mknod("block", S_IFBLK | 0600, makedev(300, 70000)));
  log.Say("mknod", mknod("plain", S_IFREG | 0600, 0));
  struct stat st {};
  stat("block", &st);
  log.Note("device", fmt::format("{} {}", major(st.st_rdev), minor(st.st_rdev)));
  for (const char* path : {"new", "device", "block", "plain"}) log.Stat(path);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "socket");
  log.Say("bind", bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address));
  log.Say("bind", bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address));
  log.Say("listen", listen(listener, 1));
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  log.Say("connect", connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address));
  log.Stat("socket");
  log.Say("symlink", symlink("dir", "s1"));
  log.Say("symlink", symlink("dir", "s1"));
  log.Say("symlink", symlink("", "s2"));
  log.Say("symlink", symlink(std::string(4095, 'x').c_str(), "s3"));
  log.Say("symlink", symlink(std::string(4096, 'x').c_str(), "s4"));
  log.Say("loop", symlink("loop", "loop"));
  log.Say("loop", open("loop", O_RDONLY));
  log.Stat("s1");
  log.Stat("s3");
  log.Say("through", access("s1/sub", F_OK));
}

void Names(Log& log) {
  const std::string longest(255, 'n'), longer(256, 'n');
  log.Say("create", open(longest.c_str(), O_CREAT | O_WRONLY, 0644) < 0 ? -1 : 0);
  log.Say("create", open(longer.c_str(), O_CREAT | O_WRONLY, 0644));
  log.Say("mkdir", mkdir(longer.c_str(), 0755));
  log.Say("link", link("file", longer.c_str()));
  log.Say("symlink", symlink("file", longer.c_str()));
  log.Say("mkfifo", mkfifo(longer.c_str(), 0644));
  log.Say("rename", rename("file", longer.c_str()));
  log.Say("rename", rename(longer.c_str(), "file"));
  log.Say("unlink", unlink(longer.c_str()));
  log.Say("rmdir", rmdir(longer.c_str()));
  log.Say("stat", access(longer.c_str(), F_OK));
  log.Say("rename", rename("file", longest.c_str()));
  log.Say("path", access(std::string(5000, '/').c_str(), F_OK));
  std::string deep = "dir";
  while (deep.size() < 4000) deep += "/.";
  log.Say("path", access(deep.c_str(), F_OK));
  log.Say("bytes", mkdir("\xff\x01 \n\\", 0755));
  log.Stat("\xff\x01 \n\\");
  struct statvfs st {};
  statvfs(".", &st);
  log.Note("namemax", std::to_string(st.f_namemax));
}

void Opens(Log& log) {
  log.Open("file", O_WRONLY | O_CREAT | O_EXCL);
  log.Open("symlink", O_WRONLY | O_CREAT | O_EXCL);
  log.Open("dangling", O_WRONLY | O_CREAT | O_EXCL);
  log.Open("dangling", O_RDONLY);
  log.Open("symlink", O_RDONLY | O_NOFOLLOW);
  log.Open("dir", O_WRONLY);
  log.Open("dir", O_RDONLY | O_CREAT);
  log.Open("file", O_RDONLY | O_DIRECTORY);
  log.Open("dir", O_RDONLY | O_DIRECTORY);
  log.Open("file/x", O_RDONLY);
  log.Open("none", O_RDONLY);
  log.Open("fifo", O_WRONLY | O_NONBLOCK);
  log.Open("new", O_RDONLY | O_CREAT | O_EXCL, 0000);
  log.Stat("new");
  const int one = log.Open("file", O_WRONLY | O_APPEND), two = log.Open("file", O_WRONLY | O_APPEND);
  log.Say("append", write(one, "first", 5));
  log.Say("append", write(two, "second", 6));
  log.Say("append", write(one, "third", 5));
  log.Say("at", pwrite(one, "end", 3, 0));  // Linux: appends
  log.Say("truncate", ftruncate(two, 4));
  log.Say("append", write(one, "last", 4));
  log.Content("file");
  close(log.Open("big", O_WRONLY | O_TRUNC));
  log.Stat("big");
  const int reader = log.Open("file", O_RDONLY);
  log.Say("write", write(reader, "x", 1));
  log.Say("ftruncate", ftruncate(reader, 0));
  log.Say("truncate", truncate("file", -1));
  log.Say("truncate", truncate("dir", 0));
  log.Say("truncate", truncate("none", 0));
  log.Say("far", pwrite(one, "x", 1, -1));
  char byte = 0;
  log.Say("read", read(two, &byte, 1));
  log.Say("exec", system("cp /bin/true program && ./program"));
  const int busy = log.Open("program", O_WRONLY);
  log.Say("exec", system("./program 2> /dev/null"));
  close(busy);
}

void Unlinked(Log& log) {
  const int file = log.Open("big", O_RDWR), own = log.Open("new", O_RDWR | O_CREAT);
  const int directory = log.Open("empty", O_RDONLY | O_DIRECTORY);
  log.Say("unlink", unlink("big"));
  log.Say("unlink", unlink("new"));
  log.Say("write", pwrite(file, "bytes", 5, 1000000));
  log.Say("write", write(own, "bytes", 5));
  log.Say("truncate", ftruncate(file, 1000003));
  log.Say("chmod", fchmod(own, 0600));
  log.Say("xattr", fsetxattr(own, "user.a", "1", 1, 0));
  log.Say("sync", fsync(own));
  struct stat st {};
  fstat(file, &st);
  log.Note("stat", fmt::format("{} {}", st.st_size, st.st_nlink));
  char bytes[8] = {};
  log.Say("read", pread(file, bytes, 8, 999998));
  log.Note("bytes", std::string(bytes + 2, 3));
  log.Say("rmdir", rmdir("empty"));
  log.Say("create", openat(directory, "x", O_CREAT | O_WRONLY, 0644));
  log.Say("mkdir", mkdirat(directory, "x", 0755));
  log.Say("link", linkat(AT_FDCWD, "file", directory, "x", 0));
  log.Say("rename", renameat(AT_FDCWD, "file", directory, "x"));
  fstat(directory, &st);
  log.Note("links", std::to_string(st.st_nlink));
  log.Say("rename over open", rename("file", "other"));
}

void Permissions(Log& log) {
  log.Say("sticky", mkdir("sticky", 01777) || chmod("sticky", 01777));
  MakeFile("sticky/root", "x", 0666);
  As(kSomebody, log, [](Log& own) {
    MakeFile("sticky/somebody", "x", 0666);
    own.Say("unlink", unlink("sticky/root"));
    own.Say("rename", rename("sticky/root", "sticky/x"));
    own.Say("create", open("dir/x", O_CREAT | O_WRONLY, 0644));
    own.Say("write", open("file", O_WRONLY));
    own.Say("chmod", chmod("file", 0777));
    own.Say("chown", chown("sticky/somebody", kOther, kOther));
    own.Say("utime", utimensat(AT_FDCWD, "file", nullptr, 0));
    own.Say("mknod", mknod("sticky/device", S_IFCHR | 0600, makedev(1, 3)));
    own.Say("xattr", setxattr("file", "user.a", "1", 1, 0));
    own.Say("trusted", setxattr("sticky/somebody", "trusted.a", "1", 1, 0));
    own.Say("read", open("secret", O_RDONLY));
    own.Say("search", access("locked/x", F_OK));
  });
  As(kOther, log, [](Log& own) {
    own.Say("unlink", unlink("sticky/somebody"));
    own.Say("rename", rename("sticky/somebody", "sticky/x"));
    own.Say("write", open("sticky/somebody", O_WRONLY) < 0 ? -1 : 0);
  });
  As(kSomebody, log, [](Log& own) { own.Say("unlink", unlink("sticky/somebody")); });
  log.Say("setgid", mkdir("setgid", 0755) || chown("setgid", 0, kOther) || chmod("setgid", 02777));
  mkdir("setgid/dir", 0755);
  MakeFile("setgid/file", "x", 0644);
  As(kSomebody, log, [](Log& own) {
    mkdir("setgid/own", 0755);
    own.Say("create", open("setgid/program", O_CREAT | O_WRONLY, 02755) < 0 ? -1 : 0);
    own.Stat("setgid/own");
    own.Stat("setgid/program");
  });
  for (const char* path : {"setgid/dir", "setgid/file"}) log.Stat(path);
}

void SetIdBits(Log& log) {
  const auto make = [] {
    MakeFile("set", "0123456789", 0755);
    if (chown("set", kSomebody, kSomebody) != 0 || chmod("set", 06755) != 0) abort();
  };
  for (const uid_t user : {uid_t{0}, kSomebody, kOther}) {
    for (const char* lower : {"", "lower "}) {
      const char* path = *lower ? "setid" : "set";
      const auto reset = [&] {
        if (*lower) {
          if (chown("setid", kSomebody, kSomebody) != 0 || chmod("setid", 06777) != 0) abort();
        } else {
          make();
          if (chmod("set", 06777) != 0) abort();
        }
      };
      const auto test = [&](const char* what, const std::function<long()>& body) {
        reset();
        As(user, log, [&](Log& own) { own.Say(std::string(lower) + what, body()); });
        log.Stat(path);
      };
      test("write", [&] { return pwrite(open(path, O_WRONLY), "x", 1, 0); });
      test("truncate", [&] { return truncate(path, 3); });
      test("open O_TRUNC", [&] { return open(path, O_WRONLY | O_TRUNC) < 0 ? -1L : 0L; });
      test("chown", [&] { return chown(path, static_cast<uid_t>(-1), user == 0 ? 0 : user); });
      test("chmod", [&] { return chmod(path, 06711); });
      test("fallocate", [&] { return fallocate(open(path, O_WRONLY), 0, 0, 100); });
    }
  }
}

void Times(Log& log) {
  const auto set = [&](const char* path, timespec atime, timespec mtime) {
    const timespec times[2] = {atime, mtime};
    if (log.Say(std::string("utimens ") + path, utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW)) != 0) return;
    struct stat st {};
    lstat(path, &st);
    const auto text = [](const timespec& given, const timespec& is) {
      return given.tv_nsec == UTIME_NOW || given.tv_nsec == UTIME_OMIT ? std::string("-")
                                                                      : fmt::format("{}.{:09}", is.tv_sec, is.tv_nsec);
    };
    log.Note("times", text(atime, st.st_atim) + " " + text(mtime, st.st_mtim));
  };
  for (const char* path : {"file", "dir", "symlink", "fifo", "one", "big"}) {
    set(path, {1, 2}, {1234567890, 123456789});
    set(path, {0, UTIME_OMIT}, {-5, 999999999});
    set(path, {5000000000, 1}, {0, UTIME_OMIT});
    set(path, {0, UTIME_NOW}, {0, UTIME_NOW});
    set(path, {0, 1000000000}, {0, 0});
  }
  // What each operation moves: m and c of a file and of its directory.
  const auto moves = [&](const char* what, const char* file, const char* directory, const std::function<int()>& body) {
    const timespec past[2] = {{100, 0}, {100, 0}};
    utimensat(AT_FDCWD, file, past, AT_SYMLINK_NOFOLLOW);
    utimensat(AT_FDCWD, directory, past, 0);
    struct stat before[2] = {}, after[2] = {};
    lstat(file, &before[0]);
    lstat(directory, &before[1]);
    usleep(15000);  // longer than a tick of the kernel's coarse clock
    log.Say(what, body());
    lstat(file, &after[0]);
    lstat(directory, &after[1]);
    std::string moved;
    for (int i = 0; i < 2; ++i) {
      const auto later = [](const timespec& a, const timespec& b) { return std::pair(a.tv_sec, a.tv_nsec) < std::pair(b.tv_sec, b.tv_nsec); };
      moved += later(before[i].st_mtim, after[i].st_mtim) ? "m" : "-";
      moved += later(before[i].st_ctim, after[i].st_ctim) ? "c" : "-";
    }
    log.Note("moved", moved);
  };
  moves("chmod", "file", ".", [] { return chmod("file", 0600); });
  moves("chown", "file", ".", [] { return chown("file", 1, 1); });
  moves("link", "file", "dir", [] { return link("file", "dir/l"); });
  moves("unlink", "file", "dir", [] { return unlink("dir/l"); });
  moves("truncate", "file", ".", [] { return truncate("file", 2); });
  moves("setxattr", "file", ".", [] { return setxattr("file", "user.z", "1", 1, 0); });
  moves("removexattr", "file", ".", [] { return removexattr("file", "user.z"); });
  moves("create", "file", "dir", [] { return close(open("dir/c", O_CREAT | O_WRONLY, 0644)); });
  moves("mkdir", "file", "dir", [] { return mkdir("dir/d", 0755); });
  moves("rmdir", "file", "dir", [] { return rmdir("dir/d"); });
  moves("rename", "dir/c", "dir", [] { return rename("dir/c", "dir/e"); });
  moves("failed create", "file", "dir", [] { return open("dir/e", O_CREAT | O_EXCL | O_WRONLY, 0644); });
  moves("write", "file", ".", [] {
    const int file = open("file", O_WRONLY);
    const int failed = write(file, "x", 1) != 1;
    return failed + fsync(file) + close(file);
  });
  moves("read", "big", ".", [] {
    char byte;
    return static_cast<int>(read(open("big", O_RDONLY), &byte, 1));
  });
}

void Allocation(Log& log) {
  for (const char* path : {"big", "file", "new"}) {
    const int file = log.Open(path, O_RDWR | O_CREAT);
    const auto allocate = [&](int mode, off_t offset, off_t length) {
      log.Say(fmt::format("fallocate {} {} {}", mode, offset, length), fallocate(file, mode, offset, length));
      log.Stat(path);
      log.Content(path);
    };
    allocate(0, 0, 5000);
    allocate(FALLOC_FL_KEEP_SIZE, 0, 4000000);
    allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 10000);
    allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2990000, 100000);
    allocate(FALLOC_FL_PUNCH_HOLE, 0, 1);
    allocate(FALLOC_FL_ZERO_RANGE, 8192, 4096);
    allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 1, 5000000);
    allocate(0, 0, 0);
    allocate(0, -1, 10);
    log.Say("posix", posix_fallocate(file, 0, 6000));
    log.Say("far", pwrite(file, "end", 3, 5000000));
    log.Content(path);
    log.Say("cut", ftruncate(file, 4097));
    log.Say("grow", ftruncate(file, 12000));
    log.Content(path);
    log.Say("end", lseek(file, 0, SEEK_END));
    log.Say("hole at the end", lseek(file, 12000, SEEK_HOLE));
    log.Say("data at the end", lseek(file, 12000, SEEK_DATA));
    close(file);
  }
  const int from = log.Open("one", O_RDONLY), to = log.Open("copy", O_RDWR | O_CREAT);
  off_t at = 2;
  log.Say("copy_file_range", copy_file_range(from, &at, to, nullptr, 5, 0));
  log.Say("copy_file_range", copy_file_range(from, nullptr, to, nullptr, 1 << 20, 0));
  log.Content("copy");
}

void Maps(Log& log) {
  const int file = log.Open("big", O_RDWR);
  char* map = static_cast<char*>(mmap(nullptr, 3000000, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  log.Say("map", map == MAP_FAILED ? -1 : 0);
  std::memcpy(map + 5000, "mapped", 6);
  std::memcpy(map + 2999990, "end", 3);
  char bytes[7] = {};
  log.Say("read", pread(file, bytes, 6, 5000));
  log.Note("sees", bytes);
  log.Say("write", pwrite(file, "WRITTEN", 7, 100000));
  log.Note("sees", std::string(map + 100000, 7));
  log.Say("msync", msync(map, 3000000, MS_SYNC));
  munmap(map, 3000000);
  log.Content("big");
}

void Locks(Log& log) {
  const int one = log.Open("file", O_RDWR), two = log.Open("file", O_RDWR);
  log.Say("flock", flock(one, LOCK_EX | LOCK_NB));
  log.Say("flock", flock(two, LOCK_SH | LOCK_NB));
  log.Say("unlock", flock(one, LOCK_UN));
  log.Say("flock", flock(two, LOCK_SH | LOCK_NB));
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_start = 1;
  range.l_len = 2;
  log.Say("fcntl", fcntl(one, F_SETLK, &range));
  As(kSomebody, log, [&](Log& own) {
    struct flock other = range;
    other.l_pid = 0;
    own.Say("get", fcntl(two, F_GETLK, &other));
    own.Note("held", fmt::format("{} {} {}", other.l_type, other.l_start, other.l_len));
    other = range;
    own.Say("fcntl", fcntl(two, F_SETLK, &other));
    other.l_start = 3;
    own.Say("fcntl", fcntl(two, F_SETLK, &other));
  });
}

void Xattrs(Log& log) {
  for (const char* path : {"file", "dir", "one"}) {
    log.Say("replace", setxattr(path, "user.a", "1", 1, XATTR_REPLACE));
    log.Say("create", setxattr(path, "user.a", "1", 1, XATTR_CREATE));
    log.Say("create", setxattr(path, "user.a", "2", 1, XATTR_CREATE));
    log.Say("replace", setxattr(path, "user.a", "long value", 10, XATTR_REPLACE));
    char value[64] = {};
    log.Say("size", getxattr(path, "user.a", nullptr, 0));
    log.Say("short", getxattr(path, "user.a", value, 3));
    log.Say("get", getxattr(path, "user.a", value, sizeof value));
    log.Note("value", value);
    log.Say("none", getxattr(path, "user.none", value, sizeof value));
    log.Say("remove", removexattr(path, "user.none"));
    log.Say("empty", setxattr(path, "user.empty", "", 0, 0));
    log.Say("trusted", setxattr(path, "trusted.t", "t", 1, 0));
    log.Say("long name", setxattr(path, ("user." + std::string(251, 'x')).c_str(), "", 0, 0));
    log.Say("no name", setxattr(path, "user.", "", 0, 0));
    log.Say("no space", setxattr(path, "nowhere.x", "", 0, 0));
    log.Say("remove", removexattr(path, "user.a"));
    char list[4096];
    const ssize_t size = listxattr(path, list, sizeof list);
    std::set<std::string> names;
    for (ssize_t i = 0; i < size; i += static_cast<ssize_t>(std::strlen(list + i)) + 1) names.insert(list + i);
    for (const auto& name : names) log.Note("listed", name);
  }
  log.Say("of a link", lsetxattr("symlink", "user.a", "1", 1, 0));
  log.Say("of a fifo", setxattr("fifo", "user.a", "1", 1, 0));
  log.Say("trusted of a link", lsetxattr("symlink", "trusted.a", "1", 1, 0));
}

// A program that was changed is not the one that was given a privilege.
void Capabilities(Log& log) {
  // cap_net_bind_service, permitted and effective: struct vfs_cap_data of linux/capability.h, revision 2.
  const uint8_t given[20] = {1, 0, 0, 2, 0, 4};
  char read_back[64];
  for (const char* path : {"file", "fresh"}) {
    close(open(path, O_WRONLY | O_CREAT, 0755));
    const auto after = [&](const char* what, const std::function<ssize_t()>& change) {
      log.Say("give", setxattr(path, "security.capability", given, sizeof given, 0));
      log.Say("has", getxattr(path, "security.capability", read_back, sizeof read_back));
      log.Say(what, change());
      log.Say("left", getxattr(path, "security.capability", read_back, sizeof read_back));
    };
    after("write", [&] {
      const int file = open(path, O_WRONLY | O_CLOEXEC);
      const ssize_t wrote = pwrite(file, "x", 1, 2);
      close(file);
      return wrote;
    });
    after("truncate", [&]() -> ssize_t { return truncate(path, 1); });
    after("longer", [&]() -> ssize_t { return truncate(path, 5000); });
    after("chown", [&]() -> ssize_t { return chown(path, kSomebody, kSomebody); });
    after("chmod", [&]() -> ssize_t { return chmod(path, 0700); });
    after("rename", [&]() -> ssize_t { return rename(path, "moved") != 0 ? -1 : rename("moved", path); });
    after("allocate", [&]() -> ssize_t {
      const int file = open(path, O_WRONLY | O_CLOEXEC);
      const int done = fallocate(file, 0, 0, 10'000);
      close(file);
      return done;
    });
    log.Say("remove", removexattr(path, "security.capability"));
    log.Say("gone", getxattr(path, "security.capability", read_back, sizeof read_back));
  }
}

void AccessLists(Log& log) {
  if (log.Say("setfacl", system("setfacl -m u:65533:rw,g:65532:r file && setfacl -d -m u:65533:rwx,o::--- dir && "
                                "setfacl -m u:65533:--- secret")) != 0) return;
  mkdir("dir/made", 0777);
  MakeFile("dir/file", "x", 0666);
  close(open("dir/masked", O_CREAT | O_WRONLY, 0640));
  symlink("x", "dir/link");
  for (const char* path : {"file", "dir", "dir/made", "dir/file", "dir/masked"}) {
    log.Stat(path);
    FILE* words = popen((std::string("getfacl -cnp ") + path).c_str(), "r");
    char text[4096];
    text[fread(text, 1, sizeof text - 1, words)] = 0;
    pclose(words);
    log.Note(path, text);
  }
  log.Say("chmod", chmod("file", 0604));
  log.Stat("file");
  As(kSomebody, log, [](Log& own) {
    own.Say("masked", open("file", O_WRONLY) < 0 ? -1 : 0);
    own.Say("refused", open("secret", O_RDONLY));
    own.Say("granted", open("dir/file", O_RDWR) < 0 ? -1 : 0);
  });
  log.Say("default of a file", system("setfacl -d -m u::rwx file 2> /dev/null"));
  log.Say("bad list", setxattr("file", "system.posix_acl_access", "nonsense", 8, 0));
  log.Say("remove", system("setfacl -b file"));
  log.Stat("file");
}

// Names that stay are listed once each, whatever comes and goes meanwhile, and a place can be gone back to.
void DirectorySeeks(Log& log) {
  mkdir("many", 0755);
  for (int i = 0; i < 500; ++i) MakeFile(fmt::format("many/stays{}", i));
  for (int i = 0; i < 500; ++i) MakeFile(fmt::format("many/goes{}", i));
  DIR* listing = opendir("many");
  std::map<std::string, int> seen;
  int count = 0;
  std::vector<std::pair<long, std::string>> places;
  for (;;) {
    const long place = telldir(listing);
    const dirent* entry = readdir(listing);
    if (!entry) break;
    ++seen[entry->d_name];
    if (std::string(entry->d_name).starts_with("stays")) places.emplace_back(place, entry->d_name);
    if (++count % 2 == 0) {
      unlink(fmt::format("many/goes{}", count / 2).c_str());
      MakeFile(fmt::format("many/comes{}", count));
    }
    if (count == 5000) break;
  }
  int once = 0;
  for (int i = 0; i < 500; ++i) once += seen[fmt::format("stays{}", i)] == 1;
  log.Note("once", std::to_string(once));
  int back = 0;
  for (const auto& [place, name] : places) {
    seekdir(listing, place);
    const dirent* entry = readdir(listing);
    back += entry && name == entry->d_name;
  }
  log.Note("found again", std::to_string(back));
  rewinddir(listing);
  seen.clear();
  while (const dirent* entry = readdir(listing)) ++seen[entry->d_name];
  size_t real = 0;
  for (const auto& [name, times] : seen) real += times == 1 && access(("many/" + name).c_str(), F_OK) == 0;
  log.Note("after rewind", real == seen.size() ? "as it is" : "otherwise");
  closedir(listing);
  log.Say("not empty", rmdir("many"));
  log.Say("rm", system("rm -r many"));
  log.Say("readdir of what was removed", access("many", F_OK));
}

}  // namespace

const std::vector<PosixCase>& PosixCases() {
  static const std::vector<PosixCase> cases = {
    {"Renames", Renames},     {"Links", Links},           {"MakeAndRemove", MakeAndRemove}, {"Names", Names},
    {"Opens", Opens},         {"Unlinked", Unlinked},     {"Permissions", Permissions},     {"SetIdBits", SetIdBits},
    {"Times", Times},         {"Allocation", Allocation}, {"Maps", Maps},                   {"Locks", Locks},
    {"Xattrs", Xattrs},       {"Capabilities", Capabilities}, {"AccessLists", AccessLists}, {"DirectorySeeks", DirectorySeeks}};
  return cases;
}

}  // namespace mirage::testing
