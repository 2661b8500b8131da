// Reading FAT without the appliance: the tree that Linux's vfat shows (guestfs_test.cc asks Linux itself), disks with
// an EFI partition, refusals, and filesystems made to do harm.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "indexer/direct_source.h"
#include "indexer/fat_directory.h"
#include "indexer/importer.h"
#include "tests/indexer/fat_image.h"
#include "tests/indexer/host_tree.h"
#include "tests/indexer/image_listing.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;
using Record = FatImage::Record;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// ---- directories

std::vector<std::string> Names(const std::string& records) {
  std::vector<std::string> names;
  for (const FatEntry& entry : DecodeFatDirectory(records, true).entries) names.push_back(entry.name);
  return names;
}

TEST(FatDirectoryTest, NamesOfEveryKind) {
  const std::string file =
      FatImage::Encode({.short_name = "SHORT~1    ", .long_name = u"A long name, of more than one part"});
  ASSERT_EQ(file.size(), 4 * kFatEntryBytes);
  EXPECT_EQ(Names(file), (std::vector<std::string>{"A long name, of more than one part"}));
  // Without one of its parts, with two of them exchanged, behind a deleted record, with another's checksum.
  for (size_t part = 0; part < 3; ++part) {
    std::string bad = file;
    bad.erase(part * kFatEntryBytes, kFatEntryBytes);
    EXPECT_EQ(Names(bad), (std::vector<std::string>{"SHORT~1"})) << part;
    bad = file;
    bad[part * kFatEntryBytes] = '\xe5';
    EXPECT_EQ(Names(bad), (std::vector<std::string>{"SHORT~1"})) << part;
    bad = file;
    bad[part * kFatEntryBytes + 13] ^= 1;
    EXPECT_EQ(Names(bad), (std::vector<std::string>{"SHORT~1"})) << part;
  }
  std::string exchanged = file;
  exchanged.replace(0, 64, file.substr(32, 32) + file.substr(0, 32));
  EXPECT_EQ(Names(exchanged), (std::vector<std::string>{"SHORT~1"}));
  // Cut anywhere.
  for (size_t length = 0; length < file.size(); ++length) EXPECT_TRUE(Names(file.substr(0, length)).empty()) << length;
  // A second file cannot have the first one's name.
  EXPECT_EQ(Names(file + FatImage::Encode({.short_name = "SHORT~1    ", .long_name = {}})).back(), "SHORT~1");
  // The longest there is, and one part more than there may be.
  const std::u16string longest(260, u'\u8a9e');
  EXPECT_EQ(Names(FatImage::Encode({.short_name = "LONGEST    ", .long_name = longest})).front().size(), 780U);
  EXPECT_EQ(Names(FatImage::Encode({.short_name = "LONGEST    ", .long_name = longest + longest.substr(0, 1)})).front(),
            "LONGEST");
  // What a name of nothing is, the filesystem says; a short one of spaces is none.
  const std::string spaces(11, ' ');
  EXPECT_TRUE(Names(FatImage::Encode({.short_name = spaces, .long_name = {}})).empty());
  EXPECT_EQ(Names(FatImage::LongName(std::u16string(1, u'\0'), FatImage::Checksum("EMPTY      ")) +
                  FatImage::Encode({.short_name = "EMPTY      ", .long_name = {}})),
            (std::vector<std::string>{""}));
  EXPECT_EQ(Names(FatImage::Encode({.short_name = std::string("AB\0D    C\0T", 11), .long_name = {}})),
            (std::vector<std::string>{"AB.C"}));
  const FatDirectory directory = DecodeFatDirectory(
      FatImage::Encode({.short_name = ".          ", .long_name = {}, .attributes = 0x10}) +
          FatImage::Encode({.short_name = "..         ", .long_name = {}, .attributes = 0x10}) +
          FatImage::Encode({.short_name = "SUB        ", .long_name = {}, .attributes = 0x10, .cluster = 0x56781234}),
      false);
  EXPECT_EQ(directory.directories, 3U);
  ASSERT_EQ(directory.entries.size(), 1U);
  EXPECT_EQ(directory.entries[0].first_cluster, 0x1234U);
}

// ---- whole images

class FatImportTest : public LibraryTest {
 protected:
  ImportOptions Options(const std::string& source, const std::string& branch, const std::string& reader = "direct") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    if (!fs::is_directory(source)) options.reader = reader;
    options.say = [this](std::string_view line) { said_.emplace_back(line); };
    return options;
  }
  Manifest Head(const std::string& branch) {
    Must(library_->Refresh());
    return Must(ReadManifest(library_->objects(), Must(library_->snapshot()->Branch(branch))->manifest));
  }
  // The directory of a version's root, or that below it.
  Entry Find(const std::string& branch, const std::string& path) {
    return Must(TreeReader(library_).Find(Head(branch).root, path));
  }
  // The error of a direct import, which must be one line that has these words and leave nothing behind.
  int ErrorOf(const std::string& image, const std::string& words) {
    const auto report = Import(*library_, Options(image, "bad"));
    if (report) return 0;
    EXPECT_NE(report.error().message.find(words), std::string::npos) << report.error().message;
    EXPECT_EQ(report.error().message.find('\n'), std::string::npos) << report.error().message;
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    return report.error().code;
  }
  std::vector<std::string> said_;
};

class EveryFatTest : public FatImportTest, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Bits, EveryFatTest, ::testing::Values(12, 16, 32),
                         [](const auto& kind) { return fmt::format("fat{}", kind.param); });

TEST_P(EveryFatTest, ShowsWhatLinuxShows) {
  const std::string image = directory_ / "image.raw", tree = directory_ / "tree";
  WriteFile(image, OddFatImage(GetParam()).bytes);
  fs::create_directory(tree);
  FillOddFatTree(tree);
  Must(Import(*library_, Options(image, "disk")));
  EXPECT_EQ(said_.front(), "reading the disk directly, without the appliance");
  EXPECT_EQ(Head("disk").mounts, (std::vector<Mount>{{"/sda", "vfat", "/dev/sda"}}));
  const auto from_directory = Must(Import(*library_, Options(tree, "directory")));
  if (Find("disk", "/sda").id != from_directory.tree) {  // says where they differ
    Manifest below = Head("disk");
    below.root = Find("disk", "/sda");
    VersionEqualsDirectory(library_, below, tree);
  }
  EXPECT_EQ(Find("disk", "/sda").id, from_directory.tree);
  EXPECT_EQ(Find("disk", "/sda").mtime_sec, 0);
  EXPECT_EQ(Find("disk", "/sda").mode, 0755);
}

// Nothing of it is known again by inode number and ctime, which FAT has not: a changed byte is seen, whatever its
// times.
TEST_P(EveryFatTest, ASecondVersionSeesAChangedByte) {
  const std::string image = directory_ / "image.raw";
  FatImage fat = OddFatImage(GetParam());
  WriteFile(image, fat.bytes);
  Must(Import(*library_, Options(image, "disk")));
  auto again = Must(Import(*library_, Options(image, "disk")));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.unchanged_files, 0U);
  const size_t at = fat.bytes.rfind("bottom");
  ASSERT_NE(at, std::string::npos);
  fat.bytes[at] = 'B';
  WriteFile(image, fat.bytes);
  again = Must(Import(*library_, Options(image, "disk")));
  EXPECT_TRUE(again.changed);
}

struct Kind {
  const char* name;
  const char* mkfs;
  int megabytes;
};
class MadeFatTest : public FatImportTest, public ::testing::WithParamInterface<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, MadeFatTest,
                         ::testing::Values(Kind{"fat12", "-F 12 -s 1", 2}, Kind{"fat12_16k", "-F 12 -s 32", 8},
                                           Kind{"fat16", "-F 16", 16},
                                           Kind{"fat16_4k_sectors", "-F 16 -S 4096 -s 1", 40},
                                           Kind{"fat32", "-F 32 -s 1", 40}, Kind{"fat32_4k", "-F 32 -s 8", 300}),
                         [](const auto& kind) { return std::string(kind.param.name); });

// By dosfstools and mtools: many files, several clusters of names, files of every size about a cluster, and in pieces.
TEST_P(MadeFatTest, EqualsTheDirectoryItWasFilledFrom) {
  for (const char* program : {"mkfs.fat", "mcopy"}) {
    if (!Shell(fmt::format("command -v {} >/dev/null", program))) GTEST_SKIP() << program << " is not installed";
  }
  const std::string image = directory_ / "image.raw", tree = directory_ / "tree";
  fs::create_directories(tree + "/EFI/BOOT/deep/er");
  fs::create_directories(tree + "/many");
  std::mt19937 random(20240615);
  const auto write = [&](const std::string& path, size_t size) {
    std::string data(size, '\0');
    for (char& c : data) c = static_cast<char>(random());
    WriteFile(tree + "/" + path, data);
  };
  write("EFI/BOOT/BOOTX64.EFI", 150'000);
  write("EFI/BOOT/grub.cfg", 117);
  write(
      "EFI/BOOT/deep/er/Gr\xc3\xbc\xc3\x9f"
      "e und mehr.txt",
      10);
  write("EFI/\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 5);
  for (const size_t size : {0, 1, 511, 512, 513, 4095, 4096, 4097, 16383, 16384, 16385}) {
    write(fmt::format("size {}", size), size);
  }
  for (int i = 0; i < 150; ++i) write(fmt::format("many/file number {} with a long name", i), i % 5 == 0 ? 1000 : 0);
  for (int i = 0; i < 8; ++i) write(fmt::format("between{}", i), 30'000);
  write("pieces", 120'000);
  ASSERT_TRUE(
      Shell(fmt::format("find {0} -exec chmod 0755 {{}} + && find {0} -exec touch -d '2021-03-04 05:06:08 UTC' "
                        "{{}} + && chmod 0555 {0}/pieces && touch -d @0 {0}",
                        tree)));
  // "pieces" is written where others were removed.
  ASSERT_TRUE(Shell(fmt::format(
      "truncate -s {0}M {1} && mkfs.fat {2} -n LABEL {1} >/dev/null && export LC_ALL=C.UTF-8 TZ=UTC && cd {3} && "
      "mcopy -Q -s -p -m -i {1} EFI many size* between* :: && mdel -i {1} ::between1 ::between3 ::between5 && "
      "mcopy -p -m -i {1} pieces between1 between3 between5 :: && mattrib +r -i {1} ::pieces && fsck.fat -n {1} "
      ">/dev/null",
      GetParam().megabytes, image, GetParam().mkfs, tree)));
  Must(Import(*library_, Options(image, "disk")));
  const auto from_directory = Must(Import(*library_, Options(tree, "directory")));
  if (Find("disk", "/sda").id != from_directory.tree) {
    Manifest below = Head("disk");
    below.root = Find("disk", "/sda");
    VersionEqualsDirectory(library_, below, tree);
  }
  EXPECT_EQ(Find("disk", "/sda").id, from_directory.tree);
}

// ---- disks

class EfiDiskTest : public FatImportTest {
 protected:
  // An ESP of 8 MiB, a root of 32 MiB, swap's place; `fstab` mounts what it will.
  std::string MakeDisk(const std::string& fstab, const std::string& esp, const std::string& root_type = "ext4") {
    const std::string disk = directory_ / "disk.raw", root = directory_ / "root", part = directory_ / "part";
    fs::remove_all(root);
    for (const char* name : {"etc", "bin", "boot/efi", "usr/lib"}) fs::create_directories(root + "/" + name);
    WriteFile(root + "/boot/efi/hidden", "below a mount point");
    WriteFile(root + "/etc/fstab", fstab);
    WriteFile(root + "/etc/hostname", "efi\n");
    WriteFile(root + "/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n");
    fs::create_directories(root + "/var/lib/dpkg");
    WriteFile(root + "/var/lib/dpkg/status",
              "Package: grub-efi\nStatus: install ok installed\nVersion: 2.06\n"
              "Architecture: amd64\n\n");
    EXPECT_TRUE(
        Shell(fmt::format("rm -f {0} && truncate -s 64M {0} && printf 'label:gpt\\nsize=8M,type=uefi\\nsize=32M\\n' | "
                          "sfdisk -q {0}",
                          disk)));
    WriteFile(part, esp);
    EXPECT_TRUE(Shell(fmt::format("dd if={} of={} bs=1M seek=1 conv=notrunc status=none", part, disk)));
    if (root_type == "ext4") {
      EXPECT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -d {} -E offset={} {} 32M", root, 9 << 20, disk)));
    }
    return disk;
  }
};

TEST_F(EfiDiskTest, IsReadDirectly) {
  const std::string fstab = "/dev/vda2 / ext4 errors=remount-ro 0 1\nUUID=1234-ABCD /boot/efi vfat umask=0077 0 1\n";
  const std::string disk = MakeDisk(fstab, OddFatImage(32).bytes);
  const auto report = Must(Import(*library_, Options(disk, "disk", "auto")));
  EXPECT_EQ(said_.front(), "reading the disk directly, without the appliance");
  EXPECT_TRUE(report.omissions.empty()) << report.omissions.front();
  const Manifest manifest = Head("disk");
  EXPECT_EQ(manifest.mounts, (std::vector<Mount>{{"/", "ext4", "/dev/sda2"}, {"/boot/efi", "vfat", "/dev/sda1"}}));
  EXPECT_FALSE(TreeReader(library_).Find(manifest.root, "/boot/efi/hidden"));
  EXPECT_EQ(Find("disk", "/boot/efi").mtime_sec, 0);
  EXPECT_EQ(Find("disk", "/boot/efi/MANY/one of many with a long name 0").mode, 0755);
  const auto system =
      Must(DecodeSystem(Must(library_->objects().ReadObject(ObjectKind::kInspection, manifest.inspection))));
  EXPECT_EQ(system.mountpoints.at("/boot/efi"), "/dev/sda1");
  // What ext4 has of facts spares its files; those of FAT are read.
  const auto again = Must(Import(*library_, Options(disk, "disk", "auto")));
  EXPECT_FALSE(again.changed);
}

TEST_F(EfiDiskTest, OfWhatItCannotReadOnlyWhatIsMounted) {
  const std::string mounted = "/dev/sda2 / ext4 defaults 0 1\nLABEL=ESP /boot/efi vfat defaults 0 1\n";
  const std::string not_mounted = "/dev/sda2 / ext4 defaults 0 1\n";
  // Mounted, and the power failed.
  FatImage dirty(32);
  dirty.Patch<uint8_t>(65, 1);
  dirty.Append(FatImage::kRoot, FatImage::Encode({.short_name = "ESP        ", .long_name = {}, .attributes = 0x08}));
  EXPECT_EQ(ErrorOf(MakeDisk(mounted, dirty.bytes), "/dev/sda1 (vfat): it was not unmounted cleanly"), EOPNOTSUPP);
  const auto report = Must(Import(*library_, Options(MakeDisk(not_mounted, dirty.bytes), "disk")));
  EXPECT_EQ(report.omissions,
            (std::vector<std::string>{"/dev/sda1 (vfat) is not mounted by the system's fstab and was not read"}));
  // Without a system it counts.
  EXPECT_EQ(ErrorOf(MakeDisk("", dirty.bytes, "none"), "not unmounted cleanly"), EOPNOTSUPP);
  Must(Import(*library_, Options(MakeDisk("", OddFatImage(12).bytes, "none"), "esp", "auto")));
  EXPECT_EQ(Head("esp").mounts, (std::vector<Mount>{{"/sda1", "vfat", "/dev/sda1"}}));
  // Another system beside the first.
  FatImage windows(32);
  uint32_t at = windows.AddDirectory(FatImage::kRoot, {.short_name = "WINNT      ", .long_name = {}});
  at = windows.AddDirectory(at, {.short_name = "SYSTEM32   ", .long_name = {}});
  windows.AddFile(at, {.short_name = "CMD     EXE", .long_name = {}}, "MZ");
  EXPECT_EQ(ErrorOf(MakeDisk(not_mounted, windows.bytes), "Windows or DOS"), EOPNOTSUPP);
  EXPECT_EQ(KindOf("exfat"), FilesystemKind::kOther);
}

TEST_P(EveryFatTest, RefusesWhatItDoesNotKnow) {
  const std::string file = directory_ / "image.raw";
  const int bits = GetParam();
  const auto check = [&](const std::string& words, const std::function<void(FatImage&)>& change,
                         int code = EOPNOTSUPP) {
    FatImage image = OddFatImage(bits);
    change(image);
    WriteFile(file, image.bytes);
    EXPECT_EQ(ErrorOf(file, words), code) << words;
  };
  const size_t state = bits == 32 ? 65 : 37;
  check("not unmounted cleanly", [&](FatImage& image) { image.Patch<uint8_t>(state, 1); });
  check("has errors", [&](FatImage& image) { image.Patch<uint8_t>(state, 2); });
  if (bits != 12) {  // as Windows marks it
    check("not unmounted cleanly", [&](FatImage& image) { image.SetNext(1, image.End() >> 1); });
  }
  check("of 512 bytes and its partition only", [](FatImage& image) { image.bytes.resize(image.bytes.size() - 512); });
  const auto sectors = [&](FatImage& image, uint32_t number) {
    image.Patch<uint16_t>(19, 0);
    image.Patch<uint32_t>(32, number);
  };
  // A length of the FAT that leaves clusters without entries. The image must be as long as it says.
  check("too short for its clusters", [&](FatImage& image) {
    const uint32_t more = bits == 12 ? 3000 : 40'000;
    image.bytes.resize(image.bytes.size() + size_t{more} * 512);
    sectors(image, static_cast<uint32_t>(image.bytes.size() / 512));
  });
  if (bits == 32) {
    check("another FAT", [](FatImage& image) { image.Patch<uint16_t>(40, 0x81); });
    check("unknown version", [](FatImage& image) { image.Patch<uint16_t>(42, 1); });
  }
}

// What libblkid takes for no FAT at all is refused as well, before.
TEST(FatLayoutTest, ABootSectorThatLies) {
  TemporaryDirectory directory;
  const std::string file = directory / "image.raw";
  const auto check = [&](const char* what, const std::function<void(FatImage&)>& change) {
    FatImage image(32);
    change(image);
    WriteFile(file, image.bytes);
    const auto listing = ListImage(file);
    ASSERT_FALSE(listing) << what;
    EXPECT_EQ(listing.error().code, EOPNOTSUPP) << what << ": " << listing.error().message;
  };
  check("no sectors in a cluster", [](FatImage& image) { image.Patch<uint8_t>(13, 0); });
  check("3 sectors in a cluster", [](FatImage& image) { image.Patch<uint8_t>(13, 3); });
  check("sectors of no bytes", [](FatImage& image) { image.Patch<uint16_t>(11, 0); });
  check("sectors of 513 bytes", [](FatImage& image) { image.Patch<uint16_t>(11, 513); });
  check("no reserved sectors", [](FatImage& image) { image.Patch<uint16_t>(14, 0); });
  check("no FATs", [](FatImage& image) { image.Patch<uint8_t>(16, 0); });
  check("255 FATs", [](FatImage& image) { image.Patch<uint8_t>(16, 255); });
  check("a medium", [](FatImage& image) { image.Patch<uint8_t>(21, 1); });
  check("a FAT of no length", [](FatImage& image) { image.Patch<uint32_t>(36, 0); });
  check("a FAT of 2 TiB", [](FatImage& image) { image.Patch<uint32_t>(36, 0xffffffff); });
  check("half a sector of root", [](FatImage& image) { image.Patch<uint16_t>(17, 8); });
  check("no sectors", [](FatImage& image) { image.Patch<uint32_t>(32, 0); });
  check("more sectors than there can be", [](FatImage& image) { image.Patch<uint32_t>(32, 0xffffffff); });
}

TEST_P(EveryFatTest, RefusesTreesMadeToDoHarm) {
  const std::string file = directory_ / "image.raw";
  struct Made {
    FatImage image;
    uint32_t one, two, sub, deep;  // first clusters: files of ten, a directory, one in it
    size_t one_at, two_at, sub_at, deep_at;
  };
  const auto check = [&](const std::string& words, const std::function<void(Made&)>& change) {
    Made made{FatImage(GetParam()), 0, 0, 0, 0, 0, 0, 0, 0};
    made.sub = made.image.AddDirectory(FatImage::kRoot, {.short_name = "SUB        ", .long_name = {}});
    made.deep = made.image.AddDirectory(made.sub, {.short_name = "DEEP       ", .long_name = {}});
    made.one =
        made.image.AddFile(made.sub, {.short_name = "ONE        ", .long_name = u"number one"}, std::string(5000, 'A'));
    made.two = made.image.AddFile(made.deep, {.short_name = "TWO        ", .long_name = {}}, std::string(5000, 'B'));
    made.one_at = made.image.Find("ONE        ");
    made.two_at = made.image.Find("TWO        ");
    made.sub_at = made.image.Find("SUB        ");
    made.deep_at = made.image.Find("DEEP       ");
    change(made);
    WriteFile(file, made.image.bytes);
    EXPECT_EQ(ErrorOf(file, words), words.empty() ? 0 : EIO) << words;
  };
  const auto cluster = [&](Made& made, size_t record, uint32_t value) {
    made.image.Patch<uint16_t>(record + 26, static_cast<uint16_t>(value));
    if (GetParam() == 32) made.image.Patch<uint16_t>(record + 20, static_cast<uint16_t>(value >> 16));
  };
  check("", [](Made&) {});
  // Chains.
  check("belongs to two", [](Made& m) { m.image.SetNext(m.one + 3, m.one + 1); });
  check("belongs to two", [](Made& m) { m.image.SetNext(m.one, m.one); });
  check("belongs to two", [](Made& m) { m.image.SetNext(m.two + 3, m.one + 4); });
  check("belongs to two", [&](Made& m) { cluster(m, m.two_at, m.one); });
  check("fewer clusters", [](Made& m) { m.image.SetNext(m.one + 3, m.image.End()); });
  check("more clusters", [](Made& m) { m.image.SetNext(m.one + 9, m.image.Allocate()); });
  check("a free cluster", [](Made& m) { m.image.SetNext(m.one + 3, 0); });
  check("a bad cluster", [](Made& m) { m.image.SetNext(m.one + 3, m.image.Bad()); });
  check("impossible cluster", [](Made& m) { m.image.SetNext(m.one + 3, 1); });
  check("impossible cluster", [](Made& m) { m.image.SetNext(m.one + 3, m.image.clusters() + 2); });
  check("impossible cluster", [](Made& m) { m.image.SetNext(m.one + 3, m.image.Bad() - 1); });
  check("impossible cluster", [&](Made& m) { cluster(m, m.one_at, 0xfffffff0); });
  check("impossible cluster", [&](Made& m) { cluster(m, m.one_at, 0); });
  // Sizes.
  check("more clusters", [](Made& m) { m.image.Patch<uint32_t>(m.one_at + 28, 1); });
  check("fewer clusters", [](Made& m) { m.image.Patch<uint32_t>(m.one_at + 28, 5121); });
  check("fewer clusters", [](Made& m) { m.image.Patch<uint32_t>(m.one_at + 28, 0xffffffff); });
  check("empty file", [](Made& m) { m.image.Patch<uint32_t>(m.one_at + 28, 0); });
  // Directories: that contain themselves or one above them, or come twice; loops; files as directories.
  check("belongs to two", [&](Made& m) { cluster(m, m.deep_at, m.sub); });
  check("belongs to two", [&](Made& m) {
    m.image.Append(m.deep, FatImage::Encode(
                               {.short_name = "SELF       ", .long_name = {}, .attributes = 0x10, .cluster = m.deep}));
  });
  check(GetParam() == 32 ? "a directory with two names" : "impossible cluster", [&](Made& m) {
    m.image.Append(
        m.deep,
        FatImage::Encode(
            {.short_name = "ROOT       ", .long_name = {}, .attributes = 0x10, .cluster = GetParam() == 32 ? 2U : 0U}));
  });
  check("belongs to two", [](Made& m) { m.image.SetNext(m.deep, m.deep); });
  check("without . and ..", [&](Made& m) { m.image.Patch<uint8_t>(m.one_at + 11, 0x10); });
  check("a free cluster", [](Made& m) { m.image.SetNext(m.sub, 0); });
  // Names.
  const auto add = [](Made& m, std::string short_name, std::u16string long_name) {
    m.image.AddFile(m.deep, {.short_name = std::move(short_name), .long_name = std::move(long_name)}, "x");
  };
  check("impossible name", [&](Made& m) { add(m, "A/B        ", u""); });
  check("impossible name", [&](Made& m) { add(m, "SLASH~1    ", u"../../etc/passwd"); });
  check("impossible name", [&](Made& m) { add(m, "DOTS~1     ", u".."); });
  check("impossible name", [&](Made& m) { add(m, "LONE~1     ", std::u16string(1, char16_t{0xdc00})); });
  check("a name that comes twice", [&](Made& m) { add(m, "TWO        ", u""); });
  check("a name that comes twice", [&](Made& m) { add(m, "OTHER~1    ", u"tWo"); });
  EXPECT_FALSE(Must(library_->Refresh()) && Must(library_->snapshot()->Branch("disk")));
}

// A directory may be as long as the format allows, and no longer, even with clusters of its own.
TEST_F(FatImportTest, ADirectoryThatIsTooLong) {
  const std::string file = directory_ / "image.raw";
  FatImage image(32, 5000);
  const uint32_t directory = image.AddDirectory(FatImage::kRoot, {.short_name = "LONG       ", .long_name = {}});
  const std::string deleted = "\xe5" + std::string(31, 'x');
  for (int i = 2; i < 65536; ++i) image.Append(directory, deleted);
  WriteFile(file, image.bytes);
  Must(Import(*library_, Options(file, "disk")));
  image.Append(directory, deleted);
  WriteFile(file, image.bytes);
  EXPECT_EQ(ErrorOf(file, "too long"), EIO);
}

// FAT has no checksums: a flipped bit makes another tree or an error, and the child never dies of it.
// MIRAGE_TEST_SEED and MIRAGE_TEST_RUNS repeat and prolong it.
TEST_F(FatImportTest, FlippedBitsDoNoHarm) {
  const std::string file = directory_ / "image.raw";
  const uint64_t seed = Setting("MIRAGE_TEST_SEED", 20240615), runs = Setting("MIRAGE_TEST_RUNS", 40);
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={} MIRAGE_TEST_RUNS={}", seed, runs));
  std::mt19937_64 random(seed);
  int noticed = 0;
  for (uint64_t run = 0; run < runs; ++run) {
    std::string bad = OddFatImage(run % 2 == 0 ? 12 : 32).bytes;
    const std::vector<size_t> written = WrittenPlaces(bad);
    for (uint64_t flips = 1 + random() % 20; flips > 0; --flips) {
      const size_t at = written[random() % written.size()] + random() % 64;
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    }
    WriteFile(file, bad);
    const auto listing = ListImage(file);
    if (listing) continue;
    ++noticed;
    EXPECT_TRUE(listing.error().code == EIO || listing.error().code == EOPNOTSUPP) << listing.error().message;
    for (const char* word : {"\n", "signal", "made to do harm"}) {
      EXPECT_EQ(listing.error().message.find(word), std::string::npos)
          << "run " << run << ": " << listing.error().message;
    }
  }
  EXPECT_GT(noticed, 0);
}

}  // namespace
}  // namespace mirage::testing
