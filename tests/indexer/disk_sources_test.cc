// What is said of disks before an appliance is started: OVA descriptors and archives, keys, backing files. No launch.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "indexer/guest_keys.h"
#include "indexer/importer.h"
#include "indexer/ova.h"
#include "tests/indexer/tar_bytes.h"
#include "tests/testing/memory_store.h"
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

// A disk of the archive is written once, whatever it is called.
TEST_F(DiskSourcesTest, NoDiskComesTwice) {
  const std::string twice =
      "<E><File id='f' href='d'/><File id='g' href='e'/><Disk fileRef='f'/><Disk fileRef='g'/></E>";
  const std::string link = Extended(Record("linkpath", "d")) + Header("e", '1', 0);
  EXPECT_NE(ErrorOf(Options(Write("m.ova", File("m.ovf", twice) + File("d", "x") + link + kEnd))).find("disk e twice"),
            std::string::npos);
}

// Of formats other than qcow2 too what is cut off or lies is seen before QEMU is started.
TEST_F(DiskSourcesTest, TablesAreReadBeforeQemuIs) {
  if (!Shell("command -v qemu-img")) GTEST_SKIP() << "qemu-img is not installed";
  const std::string raw = Write("raw", RandomBytes(3 << 20, 1));
  for (const std::string how :
       {"qcow2", "qcow2 -c", "qcow2 -o compat=0.10", "qcow2 -o extended_l2=on", "qcow2 -o cluster_size=2M", "vdi",
        "vdi -o static=on", "vhdx", "vhdx -o subformat=fixed", "vpc", "vpc -o subformat=fixed", "vmdk",
        "vmdk -o subformat=streamOptimized", "vmdk -o adapter_type=lsilogic,hwversion=7"}) {
    const std::string image = directory_ / "image";
    ASSERT_TRUE(Shell(fmt::format("qemu-img convert -f raw -O {} {} {}", how, raw, image))) << how;
    ImportOptions options = Options(image);
    options.reader = "direct";
    EXPECT_NE(ErrorOf(options).find("direct reader takes raw ones"), std::string::npos) << how;
    // Compressed clusters say their length in other words; a vhd that is fixed has its only mark at its end.
    if (how.ends_with("-c") || (how.starts_with("vpc") && how.ends_with("fixed"))) continue;
    const uintmax_t size = fs::file_size(image);
    for (const uintmax_t left : {size - 150'000, size / 2}) {
      if (how.ends_with("2M") && left > size / 2) continue;  // the last cluster need not be whole
      fs::resize_file(image, left);
      const std::string error = ErrorOf(options);
      EXPECT_TRUE(error.find("truncated") != std::string::npos || error.find("damaged") != std::string::npos)
          << how << ": " << error;
    }
  }
  // 500 entries that mean one table: 500 times the work, and no honest writer's.
  std::string qcow2(5 << 16, '\0');
  qcow2.replace(0, 8, std::string("QFI\xfb\0\0\0\2", 8));
  qcow2[23] = 16;
  qcow2.replace(36, 4, std::string("\0\0\1\xf4", 4));
  qcow2[45] = 1;
  for (size_t i = 0; i < 500; ++i) qcow2[(1 << 16) + i * 8 + 5] = 2;
  EXPECT_NE(ErrorOf(Options(Write("image", qcow2))).find("header is damaged"), std::string::npos);
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
