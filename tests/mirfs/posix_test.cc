// The cases of posix_cases.h in an edit mount and in a directory of the host: the expectation is the kernel's own. What they work
// on is lower in the mount, so that every copy-up is on the way.
#include "tests/mirfs/posix_cases.h"

#include <sys/wait.h>

#include <sstream>

#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

class PosixTest : public DirectoryLibraryTest, public ::testing::WithParamInterface<PosixCase> {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    if (geteuid() != 0) GTEST_SKIP() << "the cases change owners and users: only root can";
    MustRun("chmod 755 " + directory_ / "" + " && mkdir -p " + source() + " " + mount() + " && cd " + source() + R"( &&
      mkdir -p dir/sub/deep empty locked && echo file > file && echo other > other && echo one > one && ln one dir/two &&
      ln -s file symlink && ln -s nowhere dangling && mkfifo fifo && echo secret > secret && chmod 600 secret && chmod 700 locked &&
      head -c 3000000 /dev/urandom > big && echo 0123456789 > setid && chown 65533:65533 setid && chmod 6755 setid && chmod 755 .)");
    ImportSource("main");
    const char* bin = std::getenv("MIRAGE_BIN");
    MustRun(std::string(bin ? bin : ".") + "/mirfs " + path() + " " + mount() + " -o " + options());
  }
  void TearDown() override { RunShell("fusermount3 -uz " + mount()); }
  std::string mount() const { return directory_ / "mount"; }
  virtual std::string options() const { return "edit=main,allow_other,system"; }
  void Compare() {
    const std::string expected = RunIn(source(), GetParam().run), actual = RunIn(mount(), GetParam().run);
    EXPECT_GT(expected.size(), 100u);
    std::istringstream one(expected), other(actual);
    std::string left, right, last;
    for (int line = 1; std::getline(one, left) || !left.empty(); ++line) {
      right.clear();
      std::getline(other, right);
      EXPECT_EQ(left, right) << "line " << line << ", behind \"" << last << "\"";
      last = std::exchange(left, "");
    }
    EXPECT_FALSE(std::getline(other, right)) << right;
  }

  static std::string RunIn(const std::string& directory, void (*run)(Log&)) {
    int ends[2];
    if (pipe(ends) != 0) return "no pipe";
    const pid_t child = fork();
    if (child == 0) {
      umask(022);
      if (chdir(directory.c_str()) != 0) _exit(1);
      Log log;
      run(log);
      for (size_t at = 0; at < log.text().size();) {
        const ssize_t put = write(ends[1], log.text().data() + at, log.text().size() - at);
        if (put < 0) _exit(2);
        at += static_cast<size_t>(put);
      }
      _exit(0);
    }
    close(ends[1]);
    std::string said;
    char buffer[4096];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) said.append(buffer, static_cast<size_t>(got));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) said += fmt::format("the case ended with {:#x}\n", status);
    return said;
  }
};

TEST_P(PosixTest, SaysTheSameAsTheHost) { Compare(); }

INSTANTIATE_TEST_SUITE_P(Cases, PosixTest, ::testing::ValuesIn(PosixCases()),
                         [](const auto& one) { return std::string(one.param.name); });

// A mount of its user alone, whom the kernel does not check.
class PrivatePosixTest : public PosixTest {
 protected:
  std::string options() const override { return "edit=main,system"; }
};

TEST_P(PrivatePosixTest, SaysTheSameAsTheHost) {
  alone = true;
  Compare();
  alone = false;
}

INSTANTIATE_TEST_SUITE_P(Cases, PrivatePosixTest, ::testing::ValuesIn(PosixCases()),
                         [](const auto& one) { return std::string(one.param.name); });

// Where the kernel cannot read and write files by itself it caches what is written, sizes and times with it.
class WriteBackPosixTest : public PosixTest {
 protected:
  std::string options() const override { return "edit=main,allow_other,system,nopassthrough"; }
};

TEST_P(WriteBackPosixTest, SaysTheSameAsTheHost) { Compare(); }

INSTANTIATE_TEST_SUITE_P(Cases, WriteBackPosixTest, ::testing::ValuesIn(PosixCases()),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace mirage::testing
