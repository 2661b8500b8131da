// BranchFs under a seeded model: random operations, remounts, kills and commits.
#include <linux/fs.h>

#include "tests/mirfs/branch_fs_fixture.h"

namespace mirage {
namespace {

// Random operations on both, with remounts, kills after a sync, and commits that the next round stands on.
class RandomTest : public BranchFsTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(RandomTest, EqualsTheModel) {
  std::mt19937 random(GetParam());
  // Half of them with a database whose rows are in tables, mostly.
  if (GetParam() % 2 == 0) {
    limits_ = {.table_bytes = 2 << 10, .log_bytes = 8 << 10};
    Reopen();
  }
  const auto below = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); };
  const std::vector<std::string> names{"a", "b", "c", "etc", "home", "x-long"};
  const auto existing = [&]() -> std::string {
    const auto paths = model_.Paths();
    return paths.empty() ? "none" : paths[below(paths.size())];
  };
  const auto fresh = [&] {
    const std::string at = existing();
    const auto node = model_.Find(at);
    const size_t slash = at.rfind('/');
    const std::string directory = node && node->type == FileType::kDirectory ? at
                                  : slash == std::string::npos               ? ""
                                                                             : at.substr(0, slash);
    const std::string& name = names[below(names.size())];
    return directory.empty() || below(8) == 0 ? name : directory + "/" + name;
  };
  const auto is_directory = [&](const std::string& path) {
    const auto node = model_.Find(path);
    return node && node->type == FileType::kDirectory;
  };
  for (int step = 0; step < 600; ++step) {
    const std::string a = existing(), b = fresh(), c = existing();
    SCOPED_TRACE(fmt::format("seed {} step {} on {} {} {}", GetParam(), step, a, b, c));
    // Drawn before: BOTH takes its arguments twice.
    const uint64_t near = below(20000), far = below(4) ? near : below(700000), length = 1 + below(below(4) ? 5000 : 200000);
    const std::string xattr = "user." + names[below(3)], bytes = Pattern(length, static_cast<uint32_t>(random()));
    const auto mode = static_cast<uint16_t>(0600 + below(64));
    const unsigned flags = below(2) ? RENAME_EXCHANGE : 0;
    switch (below(17)) {
      case 0: BOTH(Make(b, FileType::kDirectory, 0750)); break;
      case 1: BOTH(Make(b, FileType::kRegular, 0640)); break;
      case 2: BOTH(Make(b, FileType::kSymlink, 0777, a)); break;
      case 3:
      case 4: BOTH(Write(a, far, bytes)); break;
      case 5: BOTH(Truncate(a, far)); break;
      case 6: BOTH(Chmod(a, mode)); break;
      case 7: BOTH(SetXattr(a, xattr, std::to_string(step))); break;
      case 8: BOTH(RemoveXattr(a, xattr)); break;
      case 9: BOTH(Link(a, b)); break;
      case 10: BOTH(Unlink(a)); break;
      case 11: BOTH(RemoveDirectory(a)); break;
      case 12:
      case 13: BOTH(Rename(a, b)); break;
      case 14: BOTH(Rename(a, c, flags)); break;
      case 15:
        if (!is_directory(a)) BOTH(Punch(a, near, length));
        break;
      case 16: EXPECT_EQ(0, paths_->Sync(a)); break;
    }
    if (HasFailure()) break;
    if (step % 100 == 50) {
      ExpectEqual();
      if (below(2)) {
        Reopen();
      } else {
        Must(fs_->SyncAll());
        Crash();
      }
      ExpectEqual();
    }
    if (step % 200 == 199) {
      ExpectEqual();
      const auto published = Commit();
      ASSERT_TRUE(published);
      ASSERT_EQ("", model_.DifferenceFrom(library_, published->manifest));
      overlay_ = Must(Overlay::Create(*library_, {.branch = "main", .mountpoint = "/mnt", .limits = limits_}));
      Open();
    }
  }
  ASSERT_FALSE(HasFailure()) << "seed " << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTest, ::testing::Range(1U, 13U));

}  // namespace
}  // namespace mirage
