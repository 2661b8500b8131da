// A library filled from directories that the test writes, and a mount of it whose requests can be counted because the
// daemon is this process. Used by the tests of the read-only tree.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "indexer/importer.h"
#include "mirfs/control.h"
#include "mirfs/fuse_ops.h"
#include "mirfs/read_around.h"
#include "mirfs/scan_ahead.h"
#include "mirfs/versions_fs.h"
#include "mirfs/watcher.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {

inline bool HaveFuse() { return access("/dev/fuse", R_OK | W_OK) == 0; }

struct Shell {
  int status = -1;
  std::string out;  // stdout and stderr
};
// Runs a line with sh; `out` without the last newline.
inline Shell RunShell(const std::string& line) {
  Shell result;
  FILE* pipe = popen(("{ " + line + "\n} 2>&1").c_str(), "r");
  if (!pipe) return result;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.out.append(buffer, n);
  const int status = pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  while (result.out.ends_with('\n')) result.out.pop_back();
  return result;
}
inline std::string MustRun(const std::string& line) {
  Shell shell = RunShell(line);
  EXPECT_EQ(shell.status, 0) << line << "\n" << shell.out;
  return shell.out;
}

// Where lseek(2) finds, from `from` on, data (SEEK_DATA) and a hole (SEEK_HOLE): "0 4096", "- -" where there is none.
inline std::string DataAndHole(const std::string& file, uint64_t from) {
  return MustRun("perl -e 'open(my $in, q(<), $ARGV[0]) or die $!; print join(q( ), map { my $at = sysseek($in, $ARGV[1], $_);"
                 " defined $at ? 0 + $at : $!{ENXIO} ? q(-) : $! } (3, 4))' " + file + " " + std::to_string(from));
}

class DirectoryLibraryTest : public LibraryTest {
 protected:
  std::string source() const { return directory_ / "source"; }

  // A tree with one of each kind that needs no privilege, and 300 names in one directory.
  void MakeSource() {
    MustRun("mkdir -p " + source() + " && cd " + source() + R"( &&
      mkdir -p etc/init.d usr/bin usr/share/doc many empty 'a b' &&
      echo root:x:0:0 > etc/passwd && chmod 600 etc/passwd && echo start > etc/init.d/ssh && chmod 755 etc/init.d/ssh &&
      : > etc/empty && ln -s ../etc/passwd usr/link && ln -s /nowhere etc/dangling &&
      ln -s $(printf 'x%.0s' $(seq 400)) etc/long &&
      head -c 3000000 /dev/urandom > usr/bin/big && ln usr/bin/big usr/bin/big2 && ln usr/bin/big etc/big3 &&
      cp etc/passwd usr/share/doc/copy && mkfifo etc/fifo && echo spaced > 'a b/c d' &&
      truncate -s 10M etc/sparse && printf end >> etc/sparse && chmod 4755 usr/bin/big &&
      for i in $(seq 300); do echo $i > many/$i; done &&
      cp -a many same1 && cp -a many same2 &&
      setfattr -n user.note -v hello etc/passwd &&
      find . -depth -exec touch -h -d '2024-02-03 04:05:06.789012345' {} + )");
  }
  ImportReport ImportSource(const std::string& branch, const std::string& tag = "") {
    ImportOptions options;
    options.source = source();
    options.branch = branch;
    options.tag = tag;
    options.format = "directory";
    return Must(Import(*library_, options));
  }
};

// A read-only mount served by threads of this process. The test's own calls into it are made by children (RunShell),
// since a process that waits for itself in the kernel cannot be killed when it is wrong.
class InProcessMount {
 public:
  InProcessMount(const std::string& library_path, std::string mountpoint, const VersionsFs::Options& shown = {})
      : mountpoint_(std::move(mountpoint)),
        library_(Must(Library::Open(library_path, {}))),
        filesystem_(Must(VersionsFs::Open(library_, shown))) {
    mkdir(mountpoint_.c_str(), 0755);
    FuseOptions options;
    options.source = library_path;
    session_ = Must(FuseSession::Mount(*filesystem_, mountpoint_, options));
    watcher_ = std::make_unique<Watcher>(library_, [this](const Snapshot& before, const Snapshot& after) {
      filesystem_->InvalidateChanges(before, after, *session_);
    });
    scan_ahead_ = std::make_unique<ScanAhead>(*filesystem_, *session_);
    read_around_ = std::make_unique<ReadAround>(*filesystem_, *session_);
    session_->OnRead([this](NodeId node, uint64_t offset, size_t size) {
      if (offset == 0) scan_ahead_->Note(node);
      read_around_->Note(node, offset, size);
    });
    server_ = std::thread([this] { Must(session_->Serve()); });
  }
  ~InProcessMount() {
    if (!Unmount(mountpoint_, false)) (void)Unmount(mountpoint_, true);
    server_.join();
  }
  uint64_t HandOvers() const { return session_->hand_overs(); }
  uint64_t Requests(const std::string& name) const { return session_->Requests().at(name); }
  const VersionsFs& filesystem() const { return *filesystem_; }

 private:
  std::string mountpoint_;
  std::shared_ptr<Library> library_;
  std::unique_ptr<VersionsFs> filesystem_;
  std::unique_ptr<FuseSession> session_;
  std::unique_ptr<ScanAhead> scan_ahead_;
  std::unique_ptr<ReadAround> read_around_;
  std::unique_ptr<Watcher> watcher_;
  std::thread server_;
};

}  // namespace mirage::testing
