// What is said of disks before an appliance is started: OVA descriptors and archives, keys, backing files. No launch.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "indexer/guest_keys.h"
#include "indexer/importer.h"
#include "indexer/ova.h"
#include "tests/indexer/tar_bytes.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

std::string Ovf(const std::string& href, const std::string& more = "") {
  return fmt::format("<?xml version=\"1.0\"?><ovf:Envelope><References><File ovf:id=\"f\" ovf:href=\"{}\" {}/>"
                     "</References><DiskSection><Disk ovf:fileRef=\"f\"/></DiskSection></ovf:Envelope>",
                     href, more);
}
std::string File(const std::string& name, const std::string& bytes) {
  return Header(name, '0', bytes.size()) + Padded(bytes);
}

class DiskSourcesTest : public LibraryTest {
 protected:
  std::string ErrorOf(const ImportOptions& options) {
    const auto report = Import(*library_, options);
    EXPECT_FALSE(report);
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    return report ? "" : report.error().message;
  }
  ImportOptions Options(const std::string& source) {
    ImportOptions options;
    options.source = source;
    options.branch = "disk";
    return options;
  }
  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string place = directory_ / name;
    std::ofstream(place, std::ios::binary | std::ios::trunc) << bytes;
    return place;
  }
};

TEST_F(DiskSourcesTest, TheDescriptorGivesTheDisksInItsOrder) {
  const auto disks = Must(ParseOvf(
      "<!-- <Disk fileRef='a'/> --><E><File id='a' href='1&amp;2.vmdk'/><File href=\"b.vmdk\" x:id = \"b\" "
      "compression='gzip'/><o:Disk o:fileRef='b'/><Disk fileRef='a'></Disk><Disk capacity='5'/></E>"));
  ASSERT_EQ(disks.size(), 2u);
  EXPECT_EQ(disks[0].file, "b.vmdk");
  EXPECT_TRUE(disks[0].compressed);
  EXPECT_EQ(disks[1].file, "1&2.vmdk");
  EXPECT_FALSE(disks[1].compressed);
  for (const char* bad : {"", "<E/>", "<Disk fileRef='a'/>", "<Disk fileRef='a", "<Disk fileRef=a>", "<",
                          "<!DOCTYPE x [<!ENTITY a 'b'>]><Disk fileRef='a'/>"}) {
    EXPECT_FALSE(ParseOvf(bad)) << bad;
  }
}

TEST_F(DiskSourcesTest, ADescriptorsNamesStayInTheArchive) {
  Write("secret", std::string(4096, 's'));
  for (const std::string& href : {std::string("../secret"), directory_ / "secret", std::string("/etc/passwd"),
                                  std::string("http://x/y"), std::string("missing")}) {
    const std::string error = ErrorOf(Options(Write("m.ova", File("m.ovf", Ovf(href)) + File("d", "x") + kEnd)));
    EXPECT_TRUE(error.find("outside of it") != std::string::npos || error.find("has no file") != std::string::npos)
        << error;
  }
  // A link in the archive leads nowhere either, and pieces are not put together.
  const std::string link = Extended(Record("linkpath", "../secret")) + Header("d", '2', 0);
  EXPECT_NE(ErrorOf(Options(Write("m.ova", File("m.ovf", Ovf("d")) + link + kEnd))).find("has no file"),
            std::string::npos);
  EXPECT_NE(ErrorOf(Options(Write("m.ova", File("m.ovf", Ovf("d", "ovf:chunkSize=\"5\"")) + kEnd))).find("in pieces"),
            std::string::npos);
  EXPECT_NE(ErrorOf(Options(Write("m.ova", File("m.ovf", Ovf("d")) + Header("d", '0', 1 << 20)))).find("ends too early"),
            std::string::npos);
  // A disk that names a file of this machine.
  const std::string vmdk = "# Disk DescriptorFile\nRW 63 FLAT \"/etc/shadow\" 0\n";
  EXPECT_NE(ErrorOf(Options(Write("m.ova", File("m.ovf", Ovf("d")) + File("d", vmdk) + kEnd))).find("names other files"),
            std::string::npos);
}

TEST_F(DiskSourcesTest, KeysAreAsGuestfishTakesThem) {
  const std::string file = Write("key", "from file\n");
  const auto keys = Must(ParseGuestKeys({"/dev/sda2:key:a:b", "all:file:" + file}));
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys[0].id, "/dev/sda2");
  EXPECT_EQ(keys[0].key, "a:b");
  EXPECT_EQ(keys[1].key, "from file");
  for (const char* bad : {"", "all", "all:key", "all:key:", ":key:x", "all:clevis", "all:pass:x", "all:file:/nowhere"}) {
    EXPECT_FALSE(ParseGuestKeys({bad})) << bad;
  }
  const std::string luks = Write("luks", std::string("LUKS\xba\xbe\0\2", 8) + std::string(1 << 20, 'x'));
  EXPECT_NE(ErrorOf(Options(luks)).find("try --key"), std::string::npos);
}

TEST_F(DiskSourcesTest, AMissingBackingFileIsNamed) {
  if (!Shell("command -v qemu-img")) GTEST_SKIP() << "qemu-img is not installed";
  const std::string base = Write("base", std::string(1 << 20, 'b')), middle = directory_ / "middle",
                    top = directory_ / "top";
  ASSERT_TRUE(Shell(fmt::format("cd {} && qemu-img create -q -f qcow2 -b base -F raw middle && "
                                "qemu-img create -q -f qcow2 -b middle -F qcow2 top",
                                std::string(directory_ / ""))));
  fs::remove(base);
  ImportOptions options = Options(top);
  EXPECT_NE(ErrorOf(options).find("has a backing file, middle;"), std::string::npos);
  options.format = "qcow2";
  EXPECT_NE(ErrorOf(options).find("its backing file " + base + " cannot be opened"), std::string::npos);
  options.more_disks = {top};
  EXPECT_NE(ErrorOf(options).find(top + ": its backing file " + base), std::string::npos);
}

}  // namespace
}  // namespace mirage::testing
