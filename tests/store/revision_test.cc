// Every form of a version on the command line, and what is none.
#include "store/revision.h"

#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;

TEST_F(LibraryTest, ResolvesRevisions) {
  std::vector<ObjectId> ids;
  for (const char* bytes : {"1", "2", "3"}) {
    ids.push_back(Must(Publish(library_, "rhel7", {{"a", bytes}}, *bytes == '3' ? "golden" : "")).manifest);
    Must(library_->Refresh());
  }
  const auto snapshot = library_->snapshot();
  const auto id = [&](std::string_view text) { return Must(ResolveVersion(*snapshot, text)).id; };
  const auto code = [&](std::string_view text) {
    const auto version = ResolveVersion(*snapshot, text);
    return version ? 0 : version.error().code;
  };
  EXPECT_EQ(id("rhel7"), ids[2]);
  EXPECT_EQ(id("rhel7/v1"), ids[0]);
  EXPECT_EQ(id("rhel7/golden"), ids[2]);
  EXPECT_EQ(id("rhel7/latest"), ids[2]);
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "rhel7/latest")).tag, "golden");
  EXPECT_EQ(id("rhel7~2"), ids[0]);
  EXPECT_EQ(id("rhel7~~"), ids[0]);
  EXPECT_EQ(id("rhel7~1~1"), ids[0]);
  EXPECT_EQ(id("rhel7/v2~"), ids[0]);
  EXPECT_EQ(id("rhel7~0"), ids[2]);
  EXPECT_EQ(id("@" + ids[1].Hex()), ids[1]);
  EXPECT_EQ(id("@" + ids[1].Hex().substr(0, 9)), ids[1]);
  EXPECT_EQ(id("@" + ids[1].Hex().substr(0, 12) + "~1"), ids[0]);

  EXPECT_EQ(Must(ResolveVersion(*snapshot, "rhel7/v1")).branch, "rhel7");
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "rhel7/v1")).tag, "v1");
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "rhel7~1")).branch, "");

  for (const char* missing : {"rhel8", "rhel7/v9", "rhel7~3", "rhel7~999999", "@0123456789"}) {
    EXPECT_EQ(code(missing), ENOENT) << missing;
  }
  for (const char* bad : {"", "@", "@12", "@xyzw", "~1", "rhel7~x", "rhel7~-1", "rhel7~99999999999999999999", "/v1",
                          "rhel7/", "rhel7/a/b", "-x", "a..b", "rhel7:/etc"}) {
    EXPECT_EQ(code(bad), EINVAL) << bad;
  }

  const auto path = [&](std::string_view text) { return Must(ResolveVersionPath(*snapshot, text)).path; };
  EXPECT_EQ(path("rhel7"), std::nullopt);
  EXPECT_EQ(path("rhel7:"), "/");
  EXPECT_EQ(path("rhel7/v1:/etc//./passwd/"), "/etc/passwd");
  EXPECT_EQ(path("rhel7:etc/a:b"), "/etc/a:b");
  EXPECT_EQ(ResolveVersionPath(*snapshot, "rhel7:/etc/../a").error().code, EINVAL);
}

TEST(SplitRange, Sides) {
  using Sides = std::pair<std::string, std::string>;
  EXPECT_EQ(SplitRange("a/v1..b~2"), Sides("a/v1", "b~2"));
  EXPECT_EQ(SplitRange("a..b:/x"), Sides("a", "b:/x"));
  EXPECT_EQ(SplitRange("a"), std::nullopt);
  EXPECT_EQ(SplitRange("a:/x..y"), std::nullopt);
}

}  // namespace
}  // namespace mirage
