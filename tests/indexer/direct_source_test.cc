// Reading ext2, ext3 and ext4 without the appliance: the same tree as the kernel shows, on every feature of the
// filesystem; refusals; and images made to do harm. No launches here: guestfs_test.cc compares the two roads.
#include "indexer/direct_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "indexer/importer.h"
#include "indexer/reader_process.h"
#include "tests/indexer/host_tree.h"
#include "tests/indexer/image_listing.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

std::string Missing() {
  if (geteuid() != 0) return "loop mounts need root";
  if (!fs::exists("/dev/loop-control")) return "there are no loop devices";
  return {};
}
#define NEED_LOOP() \
  if (const std::string why = Missing(); !why.empty()) GTEST_SKIP() << why

class LoopMount {
 public:
  LoopMount(const std::string& image, const std::string& options) : place_(directory_ / "mnt") {
    fs::create_directory(place_);
    ok_ = Shell(fmt::format("mount -o loop,{} {} {}", options, image, place_));
  }
  ~LoopMount() {
    if (ok_ && umount2(place_.c_str(), 0) != 0) umount2(place_.c_str(), MNT_DETACH);
  }
  bool ok() const { return ok_; }
  const std::string& path() const { return place_; }

 private:
  TemporaryDirectory directory_;
  const std::string place_;
  bool ok_ = false;
};

class DirectImportTest : public LibraryTest {
 protected:
  ImportOptions Options(const std::string& source, const std::string& branch = "disk") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    options.reader = "direct";
    options.say = [this](std::string_view line) { said_.emplace_back(line); };
    return options;
  }
  Manifest Head(const std::string& branch) {
    Must(library_->Refresh());
    return Must(ReadManifest(library_->objects(), Must(library_->snapshot()->Branch(branch))->manifest));
  }
  // A filesystem without a partition table.
  std::string MakeFilesystem(const std::string& mkfs, int megabytes = 64) const {
    const std::string image = directory_ / "image.raw";
    fs::remove(image);
    EXPECT_TRUE(Shell(fmt::format("truncate -s {}M {}", megabytes, image)));
    EXPECT_TRUE(Shell(fmt::format("{} -q -F {}", mkfs, image)));
    return image;
  }
  // The error of a direct import, which must be one line that has these words and leave nothing behind.
  int ErrorOf(const ImportOptions& options, const std::string& words) {
    const auto report = Import(*library_, options);
    if (report) return 0;
    EXPECT_NE(report.error().message.find(words), std::string::npos) << report.error().message;
    EXPECT_EQ(report.error().message.find('\n'), std::string::npos) << report.error().message;
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    return report.error().code;
  }
  std::vector<std::string> said_;
};

// What FillStrangeTree has not: what one filesystem stores in several ways.
void FillExtTree(const std::string& top) {
  const auto check = [](bool ok, const char* what) {
    if (!ok) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  };
  fs::create_directory(top + "/big-directory");
  for (int i = 0; i < 3000; ++i) std::ofstream(fmt::format("{}/big-directory/a name of some length {}", top, i)) << i;
  for (int i = 0; i < 3000; i += 3) fs::remove(fmt::format("{}/big-directory/a name of some length {}", top, i));
  // Holes between single blocks: many extents, and blocks that are mapped indirectly twice.
  const int holes = open((top + "/fragments").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  for (int i = 0; i < 1500; ++i) check(pwrite(holes, &i, sizeof i, static_cast<off_t>(i) * 9000) == sizeof i, "pwrite");
  check(ftruncate(holes, 40'000'000) == 0, "ftruncate");
  close(holes);
  // Blocks that were never written, where the filesystem has such: zeros, and data in the middle of them.
  const int unwritten = open((top + "/unwritten").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (fallocate(unwritten, 0, 0, 2'000'000) == 0) check(pwrite(unwritten, "data", 4, 1'000'000) == 4, "pwrite");
  check(fallocate(unwritten, FALLOC_FL_KEEP_SIZE, 2'000'000, 500'000) == 0 || errno == EOPNOTSUPP, "fallocate");
  close(unwritten);
  for (const int size : {1, 59, 60, 61, 100, 150, 1023, 1024, 1025, 4095, 4096, 4097}) {
    std::ofstream(fmt::format("{}/size-{}", top, size)) << std::string(static_cast<size_t>(size), 's');
    fs::create_symlink(std::string(static_cast<size_t>(std::min(size, 1000)), 't'), fmt::format("{}/to-{}", top, size));
  }
  fs::create_directory(top + "/tiny");
  std::ofstream(top + "/tiny/f") << "f";
  const std::string file = top + "/attributes";
  std::ofstream(file) << "in the inode, in a block, in an inode of their own";
  for (int i = 0; i < 8; ++i) {
    const std::string value(static_cast<size_t>(8 << i), static_cast<char>('a' + i));
    check(setxattr(file.c_str(), fmt::format("user.n{}", i).c_str(), value.data(), value.size(), 0) == 0 ||
              errno == ENOSPC,
          "setxattr");
  }
  const std::string large(20'000, 'L');
  check(setxattr(file.c_str(), "user.large", large.data(), large.size(), 0) == 0 || errno == ENOSPC, "setxattr");
}

struct Kind {
  const char* name;
  const char* mkfs;
  bool strange = true;  // FillStrangeTree's attributes and times need 4 KiB blocks and inodes of 256 bytes
};
class EveryFilesystemTest : public DirectImportTest, public ::testing::WithParamInterface<Kind> {};

TEST_P(EveryFilesystemTest, EqualsItsLoopMount) {
  NEED_LOOP();
  const std::string image = MakeFilesystem(GetParam().mkfs, 256);
  {
    const LoopMount mount(image, "rw");
    if (!mount.ok()) GTEST_SKIP() << "this kernel does not mount " << GetParam().name;
    FillExtTree(mount.path());
    if (GetParam().strange) FillStrangeTree(mount.path());
  }
  const auto report = Must(Import(*library_, Options(image)));
  EXPECT_EQ(said_.front(), "reading the disk directly, without the appliance");
  const Manifest manifest = Head("disk");
  const LoopMount mount(image, "ro");
  ASSERT_TRUE(mount.ok());
  const auto from_directory = Must(Import(*library_, Options(mount.path(), "directory")));
  if (!GetParam().strange) {  // no system on it: a directory named after the device
    const TreeReader reader(library_);
    EXPECT_EQ(Must(reader.Find(manifest.root, "/sda")).id, from_directory.tree);
    return;
  }
  EXPECT_TRUE(VersionEqualsDirectory(library_, manifest, mount.path()));
  EXPECT_EQ(from_directory.tree, report.tree);
  EXPECT_EQ(Head("directory").links, manifest.links);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, EveryFilesystemTest,
    ::testing::Values(Kind{"ext4", "mkfs.ext4 -b 4096"},
                      Kind{"ext4_1k", "mkfs.ext4 -b 1024 -O 64bit,metadata_csum", false},
                      Kind{"ext3", "mkfs.ext3 -b 4096"}, Kind{"ext2_1k", "mkfs.ext2 -b 1024 -I 128", false},
                      Kind{"inline_data", "mkfs.ext4 -b 4096 -O inline_data -I 256"},
                      Kind{"inline_data_large_inodes", "mkfs.ext4 -b 4096 -O inline_data -I 1024"},
                      Kind{"ea_inode", "mkfs.ext4 -b 1024 -O ea_inode,metadata_csum"},
                      Kind{"no_csum", "mkfs.ext4 -b 4096 -O ^metadata_csum,^64bit,uninit_bg,meta_bg,^resize_inode"},
                      Kind{"bigalloc", "mkfs.ext4 -b 4096 -O bigalloc -C 16384"}),
    [](const auto& kind) { return std::string(kind.param.name); });

// A kernel that knows case folding is not needed: the filesystem is filled by mke2fs, and the flag set by debugfs.
TEST_F(DirectImportTest, NamesOfCaseFoldedDirectoriesStayAsTheyAre) {
  const std::string tree = directory_ / "tree";
  fs::create_directories(tree + "/folded");
  for (const char* name : {"UPPER", "lower", "M\xc3\xa4\xc3\x9f"}) std::ofstream(tree + "/folded/" + name) << name;
  const std::string image = MakeFilesystem("mkfs.ext4 -O casefold -E encoding=utf8 -d " + tree, 16);
  ASSERT_TRUE(Shell(fmt::format("debugfs -w -R 'sif /folded flags 0x40080000' {} >/dev/null 2>&1", image)));
  Must(Import(*library_, Options(image)));
  const TreeReader reader(library_);
  const Manifest manifest = Head("disk");
  for (const char* name : {"UPPER", "lower", "M\xc3\xa4\xc3\x9f"}) {
    EXPECT_EQ(Must(reader.Find(manifest.root, std::string("/sda/folded/") + name)).size, std::string_view(name).size());
  }
  EXPECT_FALSE(reader.Find(manifest.root, "/sda/folded/upper"));
}

// /boot and /srv/data on partitions of their own, behind an extended partition; by UUID, label and device.
TEST_F(DirectImportTest, MountsWhatTheFstabNames) {
  NEED_LOOP();
  const std::string disk = directory_ / "disk.raw";
  ASSERT_TRUE(
      Shell(fmt::format("truncate -s 64M {0} && printf '2048,40960,83\\n43008,20480,83\\n63488,,5\\n65536,20480,83\\n"
                        "88064,20480,82\\n110592,,83\\n' | sfdisk -q {0}",
                        disk)));
  const auto at = [&](int sector, int sectors) {
    return fmt::format("offset={},sizelimit={}", sector * 512, sectors * 512);
  };
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -E offset={} {} 20480k", 2048 * 512, disk)));
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext2 -q -F -L data-label -E offset={} {} 10240k", 43008 * 512, disk)));
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -U 01234567-89ab-cdef-0123-456789abcdef -E offset={} {} 10240k",
                                65536 * 512, disk)));
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -E offset={} {} 8192k", 110592 * 512, disk)));
  {
    const LoopMount root(disk, at(2048, 40960));
    ASSERT_TRUE(root.ok());
    for (const char* name : {"etc", "bin", "boot", "srv/data", "usr/lib"})
      fs::create_directories(root.path() + "/" + name);
    std::ofstream(root.path() + "/boot/hidden") << "below a mount point";
    fs::create_hard_link(root.path() + "/boot/hidden", root.path() + "/srv/seen");
    std::ofstream(root.path() + "/etc/fstab")
        << "# comment\nUUID=01234567-89AB-cdef-0123-456789abcdef /boot ext4 defaults 0 2\n"
           "LABEL=data-label /srv/data ext2 defaults 0 2\n/dev/sda6 none swap sw 0 0\nproc /proc proc defaults 0 0\n"
           "/dev/sda1 / ext4 defaults 0 1\n/dev/sr0 /media/cd iso9660 noauto 0 0\n";
    std::ofstream(root.path() + "/usr/lib/os-release") << "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n";
    fs::create_symlink("../usr/lib/os-release", root.path() + "/etc/os-release");
    std::ofstream(root.path() + "/etc/debian_version") << "12.7\n";
    std::ofstream(root.path() + "/etc/hostname") << "many-disks\n";
  }
  {
    const LoopMount boot(disk, at(65536, 20480));
    ASSERT_TRUE(boot.ok());
    std::ofstream(boot.path() + "/vmlinuz") << "kernel";
    fs::permissions(boot.path(), fs::perms::owner_all);
  }
  const auto report = Must(Import(*library_, Options(disk)));
  const Manifest manifest = Head("disk");
  EXPECT_EQ(manifest.mounts,
            (std::vector<Mount>{
                {"/", "ext4", "/dev/sda1"}, {"/boot", "ext4", "/dev/sda5"}, {"/srv/data", "ext2", "/dev/sda2"}}));
  EXPECT_EQ(report.omissions,
            (std::vector<std::string>{
                "/dev/sda7 (ext4) is not mounted by the system's fstab and was not read",
                "the installed packages could not be listed: the direct reader knows dpkg's and rpm's lists alone"}));
  const TreeReader reader(library_);
  EXPECT_FALSE(reader.Find(manifest.root, "/boot/hidden"));
  EXPECT_TRUE(reader.Find(manifest.root, "/srv/seen"));
  EXPECT_TRUE(reader.Find(manifest.root, "/boot/vmlinuz"));
  EXPECT_EQ(Must(reader.Find(manifest.root, "/boot")).mode, 0700);
  const auto system =
      Must(DecodeSystem(Must(library_->objects().ReadObject(ObjectKind::kInspection, manifest.inspection))));
  EXPECT_EQ(system.distro, "debian");
  EXPECT_EQ(system.product, "Debian 12");
  EXPECT_EQ(system.minor, 7);
  EXPECT_EQ(system.hostname, "many-disks");
  EXPECT_EQ(system.mountpoints.at("/boot"), "/dev/sda5");
}

TEST_F(DirectImportTest, RefusesWhatItDoesNotKnow) {
  NEED_LOOP();
  const auto patch = [](const std::string& file, std::streamoff at, const std::string& bytes) {
    std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(at)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  // Copied while it is mounted, as a snapshot of a running machine.
  std::string image = MakeFilesystem("mkfs.ext4");
  const std::string copy = directory_ / "copy.raw";
  {
    const LoopMount mount(image, "rw");
    ASSERT_TRUE(mount.ok());
    std::ofstream(mount.path() + "/f") << "f";
    ASSERT_TRUE(Shell(fmt::format("sync -f {} && cp {} {}", mount.path(), image, copy)));
  }
  EXPECT_EQ(ErrorOf(Options(copy), "journal needs recovery"), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf(Options(MakeFilesystem("mkfs.ext4 -O encrypt")), "encrypted"), EOPNOTSUPP);
  image = MakeFilesystem("mkfs.ext4");
  patch(image, 1024 + 96 + 3, "\x40");  // an incompatible feature of the future
  EXPECT_EQ(ErrorOf(Options(image), "does not know"), EOPNOTSUPP);
  image = MakeFilesystem("mkfs.ext4");
  patch(image, 1024 + 100 + 2, "\x80");  // one that only writers must know
  EXPECT_EQ(ErrorOf(Options(image), "does not know"), EOPNOTSUPP);
  image = MakeFilesystem("mkfs.ext4");
  ASSERT_TRUE(Shell("truncate -s 40M " + image));
  EXPECT_EQ(ErrorOf(Options(image), "blocks"), EOPNOTSUPP);
  image = MakeFilesystem("mkfs.ext4");
  patch(image, 1024 + 0x3a, std::string("\0\0", 2));
  EXPECT_EQ(ErrorOf(Options(image), "unmounted cleanly"), EOPNOTSUPP);

  ASSERT_TRUE(
      Shell(fmt::format("rm {0} && truncate -s 64M {0} && printf 'start=2048,size=40960,type=83\\n"
                        "start=43008,type=8e\\n' | sfdisk -q {0}",
                        image)));
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -E offset={} {} 20480k", 2048 * 512, image)));
  EXPECT_TRUE(Import(*library_, Options(image)));
  patch(image, 43008 * 512, std::string("LUKS\xba\xbe\0\1", 8) + std::string(584, 'x'));
  EXPECT_EQ(ErrorOf(Options(image), "crypto_LUKS"), EOPNOTSUPP);
  ASSERT_TRUE(Shell(fmt::format("mkfs.ext4 -q -F -E offset={} {} 8192k", 43008 * 512, image)));
  for (const int sector : {2048, 43008}) {
    const LoopMount root(image, fmt::format("offset={}", sector * 512));
    ASSERT_TRUE(root.ok());
    for (const char* name : {"etc", "bin"}) fs::create_directories(root.path() + "/" + name);
    std::ofstream(root.path() + "/etc/hosts") << "127.0.0.1 localhost\n";
  }
  EXPECT_EQ(ErrorOf(Options(image), "several operating systems"), EOPNOTSUPP);

  std::ofstream(image, std::ios::binary | std::ios::trunc) << std::string(4 << 20, 'n');
  EXPECT_EQ(ErrorOf(Options(image), "no filesystem found"), EOPNOTSUPP);
  ASSERT_TRUE(Shell(fmt::format("qemu-img convert -f raw -O qcow2 {0} {0}.qcow2", image)));
  EXPECT_EQ(ErrorOf(Options(image + ".qcow2"), "qcow2"), EOPNOTSUPP);
  ImportOptions options = Options(image);
  options.reader = "none";
  EXPECT_EQ(ErrorOf(options, "use auto"), EINVAL);
}

// On a filesystem with checksums no flipped bit may change the tree: it is noticed, or it was in a file's bytes or in
// what is not used. MIRAGE_TEST_SEED and MIRAGE_TEST_RUNS repeat and prolong it.
TEST_F(DirectImportTest, FlippedBitsAreNoticed) {
  NEED_LOOP();
  const std::string image = MakeFilesystem("mkfs.ext4 -O metadata_csum,inline_data,ea_inode -I 256 -b 1024 -N 512", 4);
  {
    const LoopMount mount(image, "rw");
    ASSERT_TRUE(mount.ok());
    fs::create_directories(mount.path() + "/a/b");
    for (int i = 0; i < 100; ++i)
      std::ofstream(fmt::format("{}/a/name-{}", mount.path(), i)) << std::string(20 * i, 'x');
    fs::create_hard_link(mount.path() + "/a/name-7", mount.path() + "/a/b/link");
    fs::create_symlink("/somewhere", mount.path() + "/a/symlink");
    const std::string value(300, 'v');
    ASSERT_EQ(setxattr((mount.path() + "/a/name-9").c_str(), "user.block", value.data(), value.size(), 0), 0);
    const std::string fragments = mount.path() + "/fragments";
    const int fd = open(fragments.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    for (int i = 0; i < 40; ++i) ASSERT_EQ(pwrite(fd, "data", 4, i * 4096), 4);
    close(fd);
  }
  const auto pristine = Must(ListImage(image));
  ASSERT_GT(pristine.size(), 100u);
  std::ifstream in(image, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  const std::vector<size_t> written = WrittenPlaces(whole);
  const uint64_t seed = Setting("MIRAGE_TEST_SEED", 20240607), runs = Setting("MIRAGE_TEST_RUNS", 60);
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={} MIRAGE_TEST_RUNS={}", seed, runs));
  std::mt19937_64 random(seed);
  int noticed = 0;
  for (uint64_t run = 0; run < runs; ++run) {
    std::string bad = whole;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      const size_t at = written[random() % written.size()] + random() % 64;
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    }
    std::ofstream(image, std::ios::binary | std::ios::trunc) << bad;
    const auto listing = ListImage(image);
    if (!listing) {
      ++noticed;
      EXPECT_TRUE(listing.error().code == EIO || listing.error().code == EOPNOTSUPP || listing.error().code == ENOMEM)
          << listing.error().message;
      EXPECT_EQ(listing.error().message.find("signal"), std::string::npos)
          << "run " << run << ": " << listing.error().message;
    } else {
      EXPECT_TRUE(*listing == pristine) << "run " << run << " was read as another tree";
    }
  }
  EXPECT_GT(noticed, 0);
}

// Without checksums the same flips make other trees, or endless ones; the child may die of them, and the parent not.
TEST_F(DirectImportTest, FlippedBitsWithoutChecksumsDoNoHarm) {
  NEED_LOOP();
  const std::string image = MakeFilesystem("mkfs.ext4 -O ^metadata_csum,inline_data -b 1024 -N 512", 4);
  {
    const LoopMount mount(image, "rw");
    ASSERT_TRUE(mount.ok());
    fs::create_directories(mount.path() + "/a/b");
    for (int i = 0; i < 100; ++i)
      std::ofstream(fmt::format("{}/a/name-{}", mount.path(), i)) << std::string(20 * i, 'x');
  }
  std::ifstream in(image, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  const std::vector<size_t> written = WrittenPlaces(whole);
  const uint64_t seed = Setting("MIRAGE_TEST_SEED", 20240608), runs = Setting("MIRAGE_TEST_RUNS", 60);
  SCOPED_TRACE(fmt::format("MIRAGE_TEST_SEED={} MIRAGE_TEST_RUNS={}", seed, runs));
  std::mt19937_64 random(seed);
  for (uint64_t run = 0; run < runs; ++run) {
    std::string bad = whole;
    for (uint64_t flips = 1 + random() % 20; flips > 0; --flips) {
      const size_t at = written[random() % written.size()] + random() % 64;
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    }
    std::ofstream(image, std::ios::binary | std::ios::trunc) << bad;
    const auto listing = ListImage(image);
    if (listing) {
      EXPECT_TRUE(listing->contains(""));
    } else {
      EXPECT_NE(listing.error().code, EINTR);
      EXPECT_EQ(listing.error().message.find('\n'), std::string::npos);
    }
  }
}

TEST_F(DirectImportTest, RefusesTreesMadeToDoHarm) {
  NEED_LOOP();
  const auto make = [&](const std::string& debugfs, const std::string& options = "") {
    const std::string image = MakeFilesystem("mkfs.ext4 -O ^metadata_csum " + options, 16);
    {
      const LoopMount mount(image, "rw");
      EXPECT_TRUE(mount.ok());
      fs::create_directories(mount.path() + "/a/b");
      std::ofstream(mount.path() + "/a/file") << std::string(10'000, 'f');
      std::ofstream(mount.path() + "/a/other") << std::string(10'000, 'o');
      std::ofstream(mount.path() + "/a/slashXname") << "s";
      fs::create_directories(mount.path() + "/etc");
      fs::create_symlink("../usr/lib/os-release", mount.path() + "/etc/os-release");
    }
    EXPECT_TRUE(Shell(fmt::format("printf '%s\\n' {} | debugfs -w -f - {} >/dev/null 2>&1", debugfs, image)));
    return image;
  };
  EXPECT_EQ(ErrorOf(Options(make("'ln /a /a/b/loop'")), "a directory with two names"), EIO);
  EXPECT_EQ(ErrorOf(Options(make("'sif /a/file size 0x7fffffffffffffff'")), "impossible size"), EIO);
  EXPECT_EQ(ErrorOf(Options(make("'sif /a/file mode 0170644'")), "no known type"), EIO);
  // Looked up, and followed, before the tree is walked.
  EXPECT_EQ(ErrorOf(Options(make("'sif /etc/os-release size 0x7fffffff'")), "link of impossible length"), EIO);
  EXPECT_EQ(ErrorOf(Options(make("'sif /a/file links_count 0'")), "deleted"), EIO);
  EXPECT_EQ(ErrorOf(Options(make("'ln <8> /a/journal'")), "reserved inode"), EIO);
  EXPECT_EQ(ErrorOf(Options(make("'sif /a/file size 0x80000000000'", "-b 4096")), "bytes in holes"), E2BIG);
  EXPECT_EQ(ErrorOf(Options(make("'sif /a/file mtime_extra 0xfffffffc'")), "impossible time"), EIO);
  const std::string image = make("'stat /a'");
  std::fstream file(image, std::ios::in | std::ios::out | std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  // Everywhere: the journal may have a copy of the directory, in front of it.
  const auto write = [&](int from_name, std::string_view bytes) {
    size_t found = 0;
    for (size_t at = whole.find("slashXname"); at != std::string::npos; at = whole.find("slashXname", at + 1), ++found) {
      file.seekp(static_cast<std::streamoff>(at) + from_name).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    file.flush();
    return found;
  };
  ASSERT_GT(write(5, "/"), 0U);
  EXPECT_EQ(ErrorOf(Options(image), "impossible name"), EIO);
  // A second "..", which libext2fs's own users pass over, and with it the file.
  write(-2, std::string_view("\2\1..", 4));
  EXPECT_EQ(ErrorOf(Options(image), "impossible name"), EIO);
  EXPECT_FALSE(Must(library_->Refresh()));
}

// Inodes alone can claim much: each of these files has 4 MB and no block.
TEST_F(DirectImportTest, SmallFilesHolesCountToo) {
  NEED_LOOP();
  const std::string image = MakeFilesystem("mkfs.ext4", 16);
  {
    const LoopMount mount(image, "rw");
    ASSERT_TRUE(mount.ok());
    for (int i = 0; i < 30; ++i) {
      std::ofstream(fmt::format("{}/{}", mount.path(), i)) << "";
      fs::resize_file(fmt::format("{}/{}", mount.path(), i), 4'000'000);
    }
  }
  std::ofstream(path() + "/mirage.yaml") << "max_hole_bytes: 100000000\n";
  library_ = Must(Library::Open(path(), {}));
  EXPECT_EQ(ErrorOf(Options(image), "more than 100000000 bytes in holes"), E2BIG);
  std::ofstream(path() + "/mirage.yaml") << "max_hole_bytes: 120000000\n";
  library_ = Must(Library::Open(path(), {}));
  Must(Import(*library_, Options(image)));
}

// Programs in the place of the disk reader that say what no reader says.
TEST_F(DirectImportTest, AChildIsNotBelieved) {
  const std::string program = directory_ / "reader";
  const auto next = [&](const std::string& script) {
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(program, fs::perms::owner_all);
    ReaderProcess::Options options;
    options.image = open("/dev/null", O_RDONLY | O_CLOEXEC);
    options.program = program;
    options.silence_s = 1;
    const auto reader = Must(ReaderProcess::Start(options));
    const auto record = reader->Next();
    close(options.image);
    return record ? "no error" : record.error().message;
  };
  EXPECT_NE(next("printf '\\377\\377\\377\\377\\001'").find("impossible record"), std::string::npos);
  EXPECT_NE(next("printf '\\0\\0\\0\\0\\377'").find("impossible record"), std::string::npos);
  EXPECT_NE(next("printf '\\020\\0\\0\\0\\001short'").find("died (exit code 0)"), std::string::npos);
  EXPECT_NE(next("kill -SEGV $$").find("died (signal 11)"), std::string::npos);
  EXPECT_NE(next("exec tail -f /dev/null").find("said nothing for 1 s"), std::string::npos);
  EXPECT_EQ(next("printf '\\0\\0\\0\\0\\013'"), "no error");
}

TEST(ReaderProtocolTest, RefusesWhatNoReaderSends) {
  EntryRecord record;
  record.path = "a/b";
  record.entry.mode = 0644;
  record.xattrs = {{"user.a", "1"}};
  const std::string good = Encode(record);
  EXPECT_EQ(Must(DecodeEntryRecord(good)).path, "a/b");
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(DecodeEntryRecord(good.substr(0, length)));
  EXPECT_FALSE(DecodeEntryRecord(good + "x"));
  for (const char* path : {"/a", "a/", "a//b", ".", "a/../b", "..", ""}) {
    record.path = path;
    EXPECT_FALSE(DecodeEntryRecord(Encode(record))) << path;
  }
  record.path = std::string("a\0b", 3);
  EXPECT_FALSE(DecodeEntryRecord(Encode(record)));
  record.path = "a";
  record.entry.mtime_nsec = 1'000'000'000;
  EXPECT_FALSE(DecodeEntryRecord(Encode(record)));
  record.entry.mtime_nsec = 0;
  record.entry.mode = 010000;
  EXPECT_FALSE(DecodeEntryRecord(Encode(record)));
  record.entry.mode = 0;
  record.target = "of no link";
  EXPECT_FALSE(DecodeEntryRecord(Encode(record)));
  EXPECT_FALSE(DecodeExtents("x"));
  EXPECT_FALSE(DecodeExtents(std::string(24 * (kMaxExtentsInRecord + 1), '\0')));
  EXPECT_FALSE(DecodeLink(Encode(LinkRecord{"a", "../b"})));
  EXPECT_EQ(Must(DecodeProblem(Encode(ProblemRecord{EINTR, "two\nlines\x1b"}))).text, "two?lines?");
  EXPECT_EQ(Must(DecodeProblem(Encode(ProblemRecord{EINTR, ""}))).code, EIO);
}

}  // namespace
}  // namespace mirage::testing
