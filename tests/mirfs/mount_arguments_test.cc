// What mount(8), fstab and a user write, and what mirfs takes it for.
#include <unistd.h>

#include "mirfs/mount_arguments.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

Result<MountArguments> Parse(std::vector<const char*> words) {
  words.insert(words.begin(), "mirfs");
  return ParseMountArguments(static_cast<int>(words.size()), words.data());
}

TEST(MountArguments, TakesWhatMountAndFstabPass) {
  const auto plain =
      Must(Parse({"/lib", "/mnt", "-o", "rw,dev,suid,noauto,x-systemd.automount,_netdev,noatime,cache=2M"}));
  EXPECT_EQ(plain.library, "/lib");
  EXPECT_EQ(plain.mountpoint, "/mnt");
  EXPECT_EQ(plain.mount_options, "noatime");
  EXPECT_EQ(plain.cache_bytes, size_t{2} << 20);
  EXPECT_FALSE(plain.system);
  EXPECT_FALSE(plain.default_permissions);
  EXPECT_FALSE(plain.edit());
  const auto shown = Must(Parse({"/lib", "/mnt", "-o", "version=web~2,uid=0,gid=7,default_permissions"}));
  EXPECT_EQ(shown.version, "web~2");
  EXPECT_EQ(shown.uid, 0u);
  EXPECT_EQ(shown.gid, 7u);
  EXPECT_TRUE(shown.default_permissions);
  EXPECT_FALSE(shown.allow_other);
  EXPECT_EQ(Must(Parse({"/lib", "/mnt", "-o", "branch=web,uid=root"})).uid, 0u);
  const auto edit =
      Must(Parse({"-f", "-oedit=debian,message=one\\, two,tag=t,author=Eva", "-o", "allow_other", "--", "-lib", "/mnt"}));
  EXPECT_TRUE(edit.foreground);
  EXPECT_EQ(edit.library, "-lib");
  EXPECT_EQ(edit.edit_branch, "debian");
  EXPECT_EQ(edit.message, "one, two");
  EXPECT_EQ(edit.tag, "t");
  EXPECT_EQ(edit.author, "Eva");
  EXPECT_TRUE(edit.default_permissions);
  EXPECT_TRUE(edit.edit());
}

// By the name mount.mirfs it is mount(8)'s helper, to which -f is "fake".
TEST(MountArguments, TakesWhatMountPassesToItsHelpers) {
  const std::vector<const char*> words = {"/sbin/mount.mirfs", "/lib", "/mnt",  "-f",      "-n", "-sv",
                                          "-o",                "rw,noauto,branch=web", "-t", "mirfs"};
  const auto arguments = Must(ParseMountArguments(static_cast<int>(words.size()), words.data()));
  EXPECT_EQ(arguments.library, "/lib");
  EXPECT_EQ(arguments.mountpoint, "/mnt");
  EXPECT_EQ(arguments.branch, "web");
  EXPECT_TRUE(arguments.fake);
  EXPECT_FALSE(arguments.foreground);
}

TEST(MountArguments, RefusesWhatItDoesNotKnow) {
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{},
                                             {"/lib"},
                                             {"/lib", "/mnt", "more"},
                                             {"/lib", "/mnt", "-o"},
                                             {"/lib", "/mnt", "-o", "sparkling"},
                                             {"/lib", "/mnt", "-o", "edit="},
                                             {"/lib", "/mnt", "-o", "edit=a,resume=b"},
                                             {"/lib", "/mnt", "-o", "tag=t"},
                                             {"/lib", "/mnt", "-o", "author=a"},
                                             {"/lib", "/mnt", "-o", "cache=-1"},
                                             {"/lib", "/mnt", "-o", "cache=lots"},
                                             {"/lib", "/mnt", "-o", "remount,ro"},
                                             {"/lib", "/mnt", "-o", "branch=a,version=b"},
                                             {"/lib", "/mnt", "-o", "edit=a,version=b"},
                                             {"/lib", "/mnt", "-o", "edit=a,uid=1"},
                                             {"/lib", "/mnt", "-o", "uid=no such user"},
                                             {"/lib", "/mnt", "-o", "gid=no such group"},
                                             {"/lib", "/mnt", "-n"},
                                             {"/lib", "/mnt", "--frob"}}) {
    EXPECT_EQ(Parse(words).error().code, EINVAL);
  }
}

TEST(MountArguments, OnlyRootLiftsNosuidAndNodev) {
  const auto system = Parse({"/lib", "/mnt", "-o", "system"});
  EXPECT_EQ(system.has_value(), geteuid() == 0);
}

}  // namespace
}  // namespace mirage::testing
