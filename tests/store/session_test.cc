// Registrations and leases: what others see of them, and that they end with what they stand for.
#include "store/session.h"

#include <sys/wait.h>
#include <unistd.h>

#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;

class SessionTest : public LibraryTest {
 protected:
  std::string sessions_path() const { return path() + "/locks/sessions"; }
  std::vector<SessionInfo> Live() { return Must(LiveSessions(Env::Default(), sessions_path())); }
};

TEST_F(SessionTest, ALeaseIsSeenWhileItLives) {
  const auto version = Must(Publish(library_, "debian", {{"a", "one"}}));
  ASSERT_EQ(Live().size(), 1U);
  EXPECT_TRUE(Live()[0].leases.empty());
  {
    const VersionLease lease = Must(library_->Lease(version.manifest));
    VersionLease second = Must(library_->Lease(version.manifest));
    EXPECT_EQ(Live()[0].leases, std::vector<ObjectId>{version.manifest});
    const VersionLease moved = std::move(second);
    second.Release();
    EXPECT_EQ(Live()[0].leases.size(), 1U);
  }
  EXPECT_TRUE(Live()[0].leases.empty());
}

TEST_F(SessionTest, AVersionMadeElsewhereCanBeLeasedWithoutARefresh) {
  const auto reader = Must(Library::Open(path(), {}));
  const auto version = Must(Publish(library_, "debian", {{"a", "one"}}));
  const auto unknown = reader->Lease(HashBytes("nothing"));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ENOENT);
  EXPECT_EQ(Must(reader->Lease(version.manifest)).manifest(), version.manifest);
}

TEST_F(SessionTest, ALeaseOutlivesTheLibraryObject) {
  const auto version = Must(Publish(library_, "debian", {{"a", "one"}}));
  auto reader = Must(Library::Open(path(), {}));
  std::optional<VersionLease> lease = Must(reader->Lease(version.manifest));
  reader.reset();
  EXPECT_EQ(Live().size(), 2U);
  lease.reset();
  EXPECT_EQ(Live().size(), 1U);
}

TEST_F(SessionTest, TheGenerationIsThatOfTheOldestHold) {
  auto session = Must(LibrarySession::Register(Env::Default(), sessions_path(), "a test"));
  const auto generation = [&] {
    for (const SessionInfo& info : Live()) {
      if (info.name == session->name()) return info.generation;
    }
    return ~uint64_t{0};
  };
  EXPECT_EQ(generation(), 0U);
  auto third = Must(session->Hold(3));
  EXPECT_EQ(generation(), 3U);
  auto fifth = Must(session->Hold(5));
  EXPECT_EQ(generation(), 3U);
  third.reset();
  EXPECT_EQ(generation(), 5U);
  fifth.reset();
  EXPECT_EQ(generation(), 5U);
}

TEST_F(SessionTest, ADeadProcessHoldsNothingAndIsSwept) {
  const auto version = Must(Publish(library_, "debian", {{"a", "one"}}));
  int ready[2], die[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(die), 0);
  const pid_t pid = ::fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    ::close(die[1]);
    auto library = Library::Open(path(), {.purpose = "a test's child"});
    if (!library) ::_exit(1);
    auto lease = (*library)->Lease(version.manifest);
    char byte = lease ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    ::_exit(static_cast<int>(::read(die[0], &byte, 1)));  // returns when the parent closes its end
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  ASSERT_EQ(Live().size(), 2U);
  bool seen = false;
  for (const SessionInfo& info : Live()) {
    seen |= info.words.find(std::to_string(pid)) == 0 && info.words.find("a test's child") != std::string::npos &&
            info.leases == std::vector<ObjectId>{version.manifest};
  }
  EXPECT_TRUE(seen);
  ::close(die[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(Live().size(), 1U);
  EXPECT_EQ(Must(Env::Default().List(sessions_path())).size(), 5U);  // it could not clean up
  SweepSessions(Env::Default(), sessions_path());
  EXPECT_EQ(Must(Env::Default().List(sessions_path())).size(), 2U);
  for (const int fd : {ready[0], ready[1], die[0]}) ::close(fd);
}

}  // namespace
}  // namespace mirage
