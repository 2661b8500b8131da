#include "indexer/linux_system.h"

#include <gtest/gtest.h>

#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

TEST(LinuxSystemTest, FstabKeepsWhatMountsADisk) {
  const auto lines = ParseFstab(
      "# /dev/sda9 /no ext4\n\nUUID=ab\t/  ext4 errors=remount-ro 0 1\n/dev/sda2 /with\\040space/ ext4\n"
      "tmpfs /tmp tmpfs\nserver:/x /net nfs\n/dev/sda3 none swap sw\n/dev/sr0 /cd iso9660\n/dev/sda4 relative ext4\n"
      "/dev/sda5 /b none bind\n/dev/sda6");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].device, "UUID=ab");
  EXPECT_EQ(lines[0].options, "errors=remount-ro");
  EXPECT_EQ(lines[1].path, "/with space");
  EXPECT_EQ(lines[1].options, "");
}

TEST(LinuxSystemTest, ReleasesAreNamedAsLibguestfsNamesThem) {
  SystemDescription system;
  DescribeRelease("NAME=x\nID=alpine\nVERSION_ID=3.18.4\nPRETTY_NAME=\"Alpine Linux v3.18\"\n", "", system);
  EXPECT_EQ(system.distro, "alpinelinux");
  EXPECT_EQ(system.major, 3);
  EXPECT_EQ(system.minor, 18);
  EXPECT_EQ(system.product, "Alpine Linux v3.18");
  system = {};
  DescribeRelease("ID=debian\nVERSION_ID=\"12\"\n", "12.4\n", system);
  EXPECT_EQ(system.minor, 4);
  system = {};
  DescribeRelease("ID=debian\nVERSION_ID=\"12\"\n", "bookworm/sid\n", system);
  EXPECT_EQ(system.minor, 0);
  system = {};
  DescribeRelease("\xff\n=\nID\nID='of my own'", "", system);
  EXPECT_EQ(system.distro, "unknown");
}

TEST(LinuxSystemTest, DpkgListsWhatIsInstalled) {
  const auto packages = ParseDpkgStatus(
      "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.0-3+b1\nDescription: x\n Version: "
      "no\n\n"
      "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n"
      "Package: last\nStatus: hold ok installed\nVersion: 0.1\nArchitecture: all");
  ASSERT_EQ(packages.size(), 2u);
  EXPECT_EQ(packages[0], (Package{"a", "1:2.0-3+b1", "amd64"}));
  EXPECT_EQ(packages[1], (Package{"last", "0.1", "all"}));
}

TEST(LinuxSystemTest, ElfHeadersNameTheMachine) {
  std::string head(64, '\0');
  head.replace(0, 6,
               "\x7f"
               "ELF\2\1");
  head[18] = 62;
  EXPECT_EQ(ElfArchitecture(head), "x86_64");
  head[18] = '\xb7';
  EXPECT_EQ(ElfArchitecture(head), "aarch64");
  EXPECT_FALSE(ElfArchitecture(head.substr(0, 19)));
  EXPECT_FALSE(ElfArchitecture("#!/bin/sh"));
}

TEST(SystemDescriptionTest, IsCanonicalAndDecodes) {
  SystemDescription system;
  system.type = "linux";
  system.distro = "debian";
  system.major = 12;
  system.packages = {{"b", "1", "all"}, {"a", "2", "amd64"}, {"a", "1", "i386"}};
  system.mountpoints = {{"/", "/dev/sda1"}};
  const std::string json = EncodeSystem(system);
  EXPECT_EQ(json,
            R"({"mountpoints":{"/":"/dev/sda1"},"os":{"arch":"","distro":"debian","hostname":"","major":12,"minor":0,)"
            R"("product":"","type":"linux"},"packages":[{"arch":"i386","name":"a","version":"1"},)"
            R"({"arch":"amd64","name":"a","version":"2"},{"arch":"all","name":"b","version":"1"}],"schema":1})");
  EXPECT_EQ(EncodeSystem(Must(DecodeSystem(json))), json);
  EXPECT_EQ(DecodeSystem(R"({"schema":2})").error().code, EPROTONOSUPPORT);
  for (const char* bad : {"", "[]", R"({"schema":1})", R"({"schema":"x"})", "\xff"}) {
    EXPECT_EQ(DecodeSystem(bad).error().code, EIO) << bad;
  }
}

}  // namespace
}  // namespace mirage::testing
