// Every road out of an edit mount, and what is left behind it.
#include <fcntl.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "mirfs/committer.h"
#include "mirfs/mount.h"
#include "mirfs/mount_status.h"
#include "tests/mirfs/mount_fixture.h"

namespace mirage::testing {
namespace {

TEST_F(MountTest, ControlUnmountCommitsAndTellsTheVersion) {
  Start("edit=debian,message=mounted");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  const auto result = Must(
      ControlUnmount(library_->path(), OverlayId(), {.message = "said", .tag = "done", .discard = false, .author = "me"}));
  ASSERT_TRUE(result.version);
  EXPECT_EQ(result.version->tag, "done");
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "done edited\n");
  const Manifest manifest = Must(ReadManifest(*library_->snapshot(), result.version->manifest));
  EXPECT_EQ(manifest.message, "said");
  EXPECT_EQ(manifest.author, "me");
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
}

// Where neither gives one it is who unmounts; of a plain umount, who mounted.
TEST_F(MountTest, TheAuthorIsTakenFromTheUnmountThenFromTheMount) {
  const auto author = [&](const std::string& options, const UnmountRequest& request) {
    Start(options);
    MustRun("date +%N >> " + mountpoint() + "/etc/motd");
    EXPECT_TRUE(Must(ControlUnmount(library_->path(), OverlayId(), request)).version);
    EXPECT_EQ(WaitForEnd(), 0);
    return HeadAuthor();
  };
  EXPECT_EQ(author("edit=debian,author=Eva", {.author = "Adam", .user = "who"}), "Adam");
  EXPECT_EQ(author("edit=debian,author=Eva", {.user = "who"}), "Eva");
  EXPECT_EQ(author("edit=debian", {.user = "who"}), "who");
  Start("edit=debian,author=Eva");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(HeadAuthor(), "Eva");
  Start("edit=debian");
  MustRun("echo again > " + mountpoint() + "/etc/motd");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(HeadAuthor(), WhoAmI());
}

TEST_F(MountTest, WhatWasExcludedIsSaidOnEveryRoad) {
  MustRun("echo 'exclude: [/etc/cache*]' > " + path() + "/mirage.yaml");
  const std::string unmount = "umount " + mountpoint() + " || fusermount3 -u " + mountpoint();
  const auto edit = [&](const std::string& name) {
    MustRun(": > " + log());
    Start("edit=debian");
    MustRun("cd " + mountpoint() + "/etc && echo " + name + " > motd && echo x > " + name);
  };
  const auto said = [&](const std::string& name) {
    const std::string text = MustRun("cat " + log()) + "\n";
    const size_t line = text.find("not committed, excluded by mirage.yaml: 1 path\n");
    EXPECT_NE(line, std::string::npos) << text;
    EXPECT_NE(text.find("  /etc/" + name + "\n", line), std::string::npos) << text;
  };
  edit("cache-plain");
  MustRun(unmount);
  EXPECT_EQ(WaitForEnd(), 0);
  said("cache-plain");
  edit("cache-term");
  kill(daemon_, SIGTERM);
  EXPECT_EQ(WaitForEnd(), 0);
  said("cache-term");
  edit("\"$(printf 'cache\\377')\"");
  const auto result = Must(ControlUnmount(library_->path(), OverlayId(), {}));
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(result.excluded.count, 1u);
  EXPECT_EQ(result.excluded.shown, std::vector<std::string>{"/etc/cache\xff"});
  edit("cache-pending");
  MustRun("sync -f " + mountpoint());
  kill(daemon_, SIGKILL);
  WaitForEnd();
  MustRun("fusermount3 -uz " + mountpoint());
  Must(Must(Overlay::Open(*library_, OverlayId()))->MarkUnmounted(true));
  Start("edit=debian");
  said("cache-pending");
  MustRun(unmount);
  EXPECT_EQ(WaitForEnd(), 0);
}

// Here its record cannot be written, as on a full disk.
TEST_F(MountTest, AnEditThatCannotEndNamesItsOverlayAndTheCommand) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  const std::string id = OverlayId(), record = OverlayPath(path(), id) + "/overlay.json";
  MustRun("mv " + record + " " + record + ".aside && mkdir " + record);
  const auto result = ControlUnmount(library_->path(), id, {});
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("the overlay is kept, try again: mirage overlay commit " + id), std::string::npos)
      << result.error().message;
  EXPECT_EQ(WaitForEnd(), 1);
  EXPECT_NE(MustRun("cat " + log()).find("mirage overlay commit " + id), std::string::npos) << MustRun("cat " + log());
  EXPECT_EQ(Head(), "v1 hello\n");
  MustRun("rmdir " + record + " && mv " + record + ".aside " + record);
  EXPECT_TRUE(Must(CommitOverlay(*library_, id, {})));
  EXPECT_EQ(Head(), "v2 edited\n");
}

TEST_F(MountTest, ADaemonThatDiesInTheUnmountLeavesTheCommandToRun) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd && sync -f " + mountpoint());
  const std::string id = OverlayId();
  kill(daemon_, SIGSTOP);
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    kill(daemon_, SIGKILL);
  });
  const auto result = ControlUnmount(library_->path(), id, {});
  killer.join();
  WaitForEnd();
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("mirage overlay commit " + id), std::string::npos) << result.error().message;
}

TEST_F(MountTest, NothingChangedIsNoVersion) {
  Start("edit=debian");
  MustRun("cat " + mountpoint() + "/etc/motd");
  const auto result = Must(ControlUnmount(library_->path(), OverlayId(), {}));
  EXPECT_FALSE(result.version);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v1 hello\n");
}

TEST_F(MountTest, DiscardLeavesNothing) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  EXPECT_TRUE(Must(ControlUnmount(library_->path(), OverlayId(), {.message = "", .tag = "", .discard = true, .author = ""}))
                  .discarded);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v1 hello\n");
  EXPECT_TRUE(Must(ListOverlays(*library_)).empty());
}

TEST_F(MountTest, BusyNamesTheUsersAndDoesNothing) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  const pid_t user = fork();
  if (user == 0) {
    if (chdir(mountpoint().c_str()) != 0) _exit(1);
    execlp("sleep", "sleep", "60", nullptr);
    _exit(127);
  }
  ASSERT_TRUE(Within10s("readlink /proc/" + std::to_string(user) + "/cwd | grep -q mount"));
  const auto refused = ControlUnmount(library_->path(), OverlayId(), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  EXPECT_NE(refused.error().message.find("sleep (pid " + std::to_string(user)), std::string::npos)
      << refused.error().message;
  EXPECT_NE(refused.error().message.find("nothing has happened to overlay " + OverlayId() + ", try again: mirage umount "),
            std::string::npos)
      << refused.error().message;
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/etc/motd"), "edited");
  kill(user, SIGKILL);
  waitpid(user, nullptr, 0);
  EXPECT_TRUE(Must(ControlUnmount(library_->path(), OverlayId(), {})).version);
  EXPECT_EQ(WaitForEnd(), 0);
}

TEST_F(MountTest, APlainUnmountCommits) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v2 edited\n");
}

// Written through a mapping and through the write-back cache: the signal must not lose what the kernel still holds.
TEST_F(MountTest, SigtermUnmountsAndLosesNothing) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd && head -c 20000000 /dev/urandom > " + directory_ / "bytes" +
          " && cp " + directory_ / "bytes" + " " + mountpoint() + "/big");
  kill(daemon_, SIGTERM);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v2 edited\n");
  const TreeReader reader(library_);
  const auto head = Must(library_->snapshot()->Branch("debian"));
  const Manifest manifest = Must(ReadManifest(*library_->snapshot(), head->manifest));
  const Entry big = Must(reader.Find(manifest.root, "/big"));
  EXPECT_EQ(big.id.Hex(), MustRun("sha256sum < " + directory_ / "bytes").substr(0, 64));
}

TEST_F(MountTest, SigtermWhileInUseServesOnToTheLastUser) {
  Start("edit=debian");
  const int file = open((mountpoint() + "/etc/motd").c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
  ASSERT_GE(file, 0);
  kill(daemon_, SIGTERM);
  ASSERT_TRUE(Within10s("! mountpoint -q " + mountpoint()));
  EXPECT_EQ(write(file, "late\n", 5), 5);
  close(file);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v2 late\n");
}

TEST_F(MountTest, ALazyUnmountCommitsWithItsLastUser) {
  Start("edit=debian");
  const int file = open((mountpoint() + "/etc/motd").c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
  ASSERT_GE(file, 0);
  MustRun("umount -l " + mountpoint() + " || fusermount3 -uz " + mountpoint());
  EXPECT_EQ(write(file, "late\n", 5), 5);
  EXPECT_EQ(Head(), "v1 hello\n");
  close(file);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v2 late\n");
}

TEST_F(MountTest, DetachedWaitsToBeTold) {
  Start("edit=debian,detach,message=later");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v1 hello\n");
  const std::string id = OverlayId();
  Start("edit=debian");  // commits what is due, and this is not
  const auto overlays = Must(ListOverlays(*library_));
  ASSERT_EQ(overlays.size(), 2u);
  EXPECT_FALSE(Must(ControlUnmount(library_->path(), overlays[overlays[0].id == id ? 1 : 0].id, {})).version);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v1 hello\n");
  EXPECT_TRUE(Must(CommitOverlay(*library_, id, {})));
  EXPECT_EQ(Head(), "v2 edited\n");
}

// Marked as unmounted, and then the process died: the commit is due, and made by whoever edits the branch next.
TEST_F(MountTest, AnInterruptedCommitIsMadeByTheNextMount) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd && sync -f " + mountpoint());
  kill(daemon_, SIGKILL);
  WaitForEnd();
  MustRun("fusermount3 -uz " + mountpoint());
  Must(Must(Overlay::Open(*library_, OverlayId()))->MarkUnmounted(true));
  Start("edit=debian");
  EXPECT_EQ(Head(), "v2 edited\n");
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/etc/motd"), "edited");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
}

TEST_F(MountTest, AKilledDaemonsOverlayIsNeverCommittedUnasked) {
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd && sync -f " + mountpoint());
  kill(daemon_, SIGKILL);
  WaitForEnd();
  MustRun("fusermount3 -uz " + mountpoint());
  const std::string id = OverlayId();
  Start("edit=debian");  // another edit of the branch, above its head
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/etc/motd"), "hello");
  MustRun("umount " + mountpoint() + " || fusermount3 -u " + mountpoint());
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v1 hello\n");
  EXPECT_EQ(OverlayId(), id);
  Start("resume=" + id);
  EXPECT_EQ(MustRun("cat " + mountpoint() + "/etc/motd"), "edited");
  EXPECT_TRUE(Must(ControlUnmount(library_->path(), id, {})).version);
  EXPECT_EQ(WaitForEnd(), 0);
  EXPECT_EQ(Head(), "v2 edited\n");
}

// The kernel's connection cut by force loses what was not written: that is no unmount, and nothing is committed.
TEST_F(MountTest, AnAbortedConnectionIsNotAnUnmount) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may cut a connection";
  Start("edit=debian");
  MustRun("echo edited > " + mountpoint() + "/etc/motd");
  const std::string connection = "/sys/fs/fuse/connections/" + MustRun("stat -c %Ld " + mountpoint()) + "/abort";
  if (access(connection.c_str(), W_OK) != 0) MustRun("mount -t fusectl fusectl /sys/fs/fuse/connections");
  if (access(connection.c_str(), W_OK) != 0) GTEST_SKIP() << "no " << connection << " here";
  MustRun("echo 1 > " + connection);
  EXPECT_EQ(WaitForEnd(), 1);
  EXPECT_EQ(Head(), "v1 hello\n");
  EXPECT_NE(MustRun("cat " + log()).find("mirage overlay commit " + OverlayId()), std::string::npos);
}

}  // namespace
}  // namespace mirage::testing
