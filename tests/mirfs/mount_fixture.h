// A library with a branch, and the mirfs program that mounts it, in the foreground.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <string>
#include <thread>
#include <utility>

#include "mirfs/overlay.h"
#include "tests/mirfs/directory_library.h"

namespace mirage::testing {

class MountTest : public DirectoryLibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    MustRun("mkdir -p " + source() + "/etc " + mountpoint() + " && echo hello > " + source() + "/etc/motd");
    ImportSource("debian");
  }
  void TearDown() override {
    RunShell("fusermount3 -uz " + mountpoint());
    if (daemon_ > 0) {
      kill(daemon_, SIGKILL);
      waitpid(daemon_, nullptr, 0);
    }
  }
  std::string mountpoint() const { return directory_ / "mount"; }
  std::string Mirfs(const std::string& options) const {
    const char* bin = std::getenv("MIRAGE_BIN");
    return std::string(bin ? bin : ".") + "/mirfs " + path() + " " + mountpoint() +
           (options.empty() ? "" : " -o " + options);
  }
  std::string log() const { return directory_ / "log"; }  // what the daemon says
  // In the foreground, so that its number is known and its end is seen.
  void Start(const std::string& options) {
    daemon_ = fork();
    if (daemon_ == 0) {
      execl("/bin/sh", "sh", "-c", ("exec " + Mirfs(options) + " -f 2>> " + log()).c_str(), nullptr);
      _exit(127);
    }
    ASSERT_TRUE(Within10s("mountpoint -q " + mountpoint())) << "it does not mount";
  }
  static bool Within10s(const std::string& line) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (RunShell(line).status != 0) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return true;
  }
  int WaitForEnd() {
    int status = 0;
    waitpid(std::exchange(daemon_, -1), &status, 0);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code != 0) std::cout << RunShell("cat " + log()).out;
    return code;
  }
  std::string OverlayId() {
    const auto overlays = Must(ListOverlays(*library_));
    return overlays.size() == 1 ? overlays[0].id : "not one overlay";
  }
  std::string HeadAuthor() {
    Must(library_->Refresh());
    return Must(ReadManifest(*library_->snapshot(), Must(library_->snapshot()->Branch("debian"))->manifest)).author;
  }
  // "TAG CONTENT" of etc/motd at the branch's head.
  std::string Head() {
    Must(library_->Refresh());
    const auto snapshot = library_->snapshot();
    const auto head = Must(snapshot->Branch("debian"));
    const TreeReader reader(library_);
    std::string bytes;
    const Manifest manifest = Must(ReadManifest(*snapshot, head->manifest));
    Must(reader.Read(Must(reader.Find(manifest.root, "/etc/motd")), 0, 1000, &bytes));
    return Must(snapshot->LatestTag("debian")) + " " + bytes;
  }

  pid_t daemon_ = -1;
};

}  // namespace mirage::testing
