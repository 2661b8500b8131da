// Importing disk images through libguestfs. Launches cost 15-25 s where hardware acceleration is missing: what can be
// shown by one is shown by one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "indexer/acceleration.h"
#include "indexer/disk_format.h"
#include "indexer/importer.h"
#include "indexer/system_description.h"
#include "tests/indexer/fat_image.h"
#include "tests/indexer/host_tree.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

// Why the appliance cannot run here; empty: it can.
std::string Missing() {
  if (geteuid() != 0) return "loop mounts need root";
  for (const char* program : {"supermin", "qemu-img", "sfdisk", "mkfs.ext4"}) {
    if (!Shell(fmt::format("command -v {}", program))) return fmt::format("{} is not installed", program);
  }
  if (!fs::exists("/dev/loop-control")) return "there are no loop devices";
  return {};
}

#define NEED_APPLIANCE() \
  if (const std::string why = Missing(); !why.empty()) GTEST_SKIP() << why

class GuestfsImportTest : public LibraryTest {
 protected:
  ImportOptions Options(const std::string& source, const std::string& branch = "disk") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    options.reader = "guestfs";
    options.say = [this](std::string_view line) { said_.emplace_back(line); };
    return options;
  }
  Manifest Head(const std::string& branch) {
    Must(library_->Refresh());
    return Must(ReadManifest(library_->objects(), Must(library_->snapshot()->Branch(branch))->manifest));
  }
  // A disk of `megabytes` with one ext4 partition, and one behind it that has `second`, if that is something.
  std::string MakeDisk(const std::string& name, int megabytes, const std::string& second = {}) const {
    const std::string disk = directory_ / name, part = directory_ / "part";
    const int first = megabytes - 1, more = second.empty() ? 0 : static_cast<int>((second.size() >> 20) + 1);
    EXPECT_TRUE(Shell(fmt::format("truncate -s {}M {}", megabytes + more, disk)));
    EXPECT_TRUE(Shell(fmt::format("printf 'start=2048,size={}M,type=83\\n{}' | sfdisk -q {}", first,
                                  more > 0 ? "type=ef\\n" : "", disk)));
    EXPECT_TRUE(Shell(fmt::format("mkfs.ext4 -q -b 4096 -E offset=1048576 -F {} {}M", disk, first)));
    if (more == 0) return disk;
    std::ofstream(part, std::ios::binary) << second;
    EXPECT_TRUE(Shell(fmt::format("dd if={} of={} bs=1M seek={} conv=notrunc status=none", part, disk, megabytes)));
    return disk;
  }
  // Fails the test if the import does not fail with these words, in one line, leaving nothing.
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

class LoopMount {
 public:
  LoopMount(const std::string& disk, const std::string& options) : place_(directory_ / "mnt") {
    fs::create_directory(place_);
    ok_ = Shell(fmt::format("mount -o {},loop,offset=1048576 {} {}", options, disk, place_));
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

class BindMount {
 public:
  BindMount(const std::string& directory, std::string place) : place_(std::move(place)) {
    ok_ = mount(directory.c_str(), place_.c_str(), nullptr, MS_BIND, nullptr) == 0;
  }
  ~BindMount() {
    if (ok_ && umount2(place_.c_str(), 0) != 0) umount2(place_.c_str(), MNT_DETACH);
  }
  bool ok() const { return ok_; }

 private:
  const std::string place_;
  bool ok_ = false;
};

TEST_F(GuestfsImportTest, ADiskEqualsItsLoopMountAndItsDirectory) {
  NEED_APPLIANCE();
  const std::string disk = MakeDisk("disk.raw", 120, OddFatImage(32).bytes);
  sleep(1);  // nor what is as old as the filesystem
  {
    const LoopMount mount(disk, "rw");
    ASSERT_TRUE(mount.ok());
    FillStrangeTree(mount.path());
    fs::create_directories(mount.path() + "/boot/efi");
    std::ofstream(mount.path() + "/etc/fstab", std::ios::app) << "UUID=1234-ABCD /boot/efi vfat umask=0077 0 1\n";
    sleep(3);  // what is as old as the newest ctime is not trusted to have kept its bytes
    std::ofstream(mount.path() + "/last") << "last";
  }
  ImportOptions options = Options(disk);
  options.message = "from the disk";
  const auto from_disk = Must(Import(*library_, options));
  std::fprintf(stderr, "appliance %.1f s, whole import %.1f s\n", from_disk.appliance_seconds, from_disk.seconds);
  EXPECT_TRUE(from_disk.omissions.empty()) << from_disk.omissions[0];
  EXPECT_LE(said_.size(), 1 + from_disk.seconds / 5);
  // Acceleration that passes the probe carries an appliance: no launch is lost to finding out.
  const char* const settings = std::getenv("LIBGUESTFS_BACKEND_SETTINGS");
  const bool told = settings != nullptr && std::strstr(settings, "force_tcg") != nullptr;
  const bool emulated = std::any_of(said_.begin(), said_.end(), [](const std::string& line) {
    return line.find("using software emulation") != std::string::npos;
  });
  EXPECT_EQ(emulated, !told && !ProbeHardwareAcceleration().empty());
  const Manifest manifest = Head("disk");

  ASSERT_EQ(manifest.disks.size(), 1u);
  EXPECT_EQ(manifest.disks[0].name, "sda");
  EXPECT_EQ(manifest.disks[0].size_bytes, fs::file_size(disk));
  EXPECT_TRUE(manifest.disks[0].skeleton.IsZero());
  EXPECT_EQ(manifest.mounts, (std::vector<Mount>{{"/", "ext4", "/dev/sda1"}, {"/boot/efi", "vfat", "/dev/sda2"}}));
  const auto inspection = nlohmann::json::parse(
      Must(library_->objects().ReadObject(ObjectKind::kInspection, manifest.inspection)));
  EXPECT_EQ(inspection["schema"], 1);
  EXPECT_EQ(inspection["os"]["distro"], "debian");
  EXPECT_EQ(inspection["os"]["major"], 12);
  EXPECT_EQ(inspection["os"]["hostname"], "strange");
  EXPECT_EQ(inspection["os"]["product"], "Debian GNU/Linux 12 (bookworm)");
  ASSERT_EQ(inspection["packages"].size(), 1u);
  EXPECT_EQ(inspection["packages"][0]["version"], "1:2.0-3");

  // By what the appliance said of the files the direct reader knows them again.
  ImportOptions again_directly = Options(disk);
  again_directly.reader = "direct";
  const auto known = Must(Import(*library_, again_directly));
  EXPECT_FALSE(known.changed);
  EXPECT_GT(known.unchanged_files, 10U);

  // In the place of the EFI partition, which this machine's kernel need not know, what FAT's rules make of it.
  const LoopMount mount(disk, "ro");
  ASSERT_TRUE(mount.ok());
  const std::string efi = directory_ / "efi";
  fs::create_directory(efi);
  FillOddFatTree(efi);
  const BindMount efi_mount(efi, mount.path() + "/boot/efi");
  ASSERT_TRUE(efi_mount.ok());
  EXPECT_TRUE(VersionEqualsDirectory(library_, manifest, mount.path()));

  const auto from_directory = Must(Import(*library_, Options(mount.path(), "directory")));
  EXPECT_EQ(from_directory.tree, from_disk.tree);
  EXPECT_EQ(Head("directory").links, manifest.links);
  const auto again = Must(Import(*library_, Options(mount.path(), "disk")));
  EXPECT_FALSE(again.changed);

  // The direct reader knows as much, without a launch.
  ImportOptions direct = Options(disk, "direct");
  direct.reader = "auto";
  said_.clear();
  const auto from_reader = Must(Import(*library_, direct));
  EXPECT_EQ(said_.front(), "reading the disk directly, without the appliance");
  EXPECT_EQ(from_reader.tree, from_disk.tree);
  const Manifest read = Head("direct");
  EXPECT_EQ(read.links, manifest.links);
  EXPECT_EQ(read.mounts, manifest.mounts);
  EXPECT_EQ(read.disks, manifest.disks);
  EXPECT_EQ(Must(library_->objects().ReadObject(ObjectKind::kInspection, read.inspection)),
            Must(library_->objects().ReadObject(ObjectKind::kInspection, manifest.inspection)));
}

// By what the direct reader said of the files the appliance knows them again; it sends what has changed. In one launch:
// whole directories, single files, directories that changed themselves, links, sockets, files that are mostly holes.
TEST_F(GuestfsImportTest, ASecondVersionReadsWhatHasChanged) {
  NEED_APPLIANCE();
  const std::string disk = MakeDisk("disk.raw", 120);
  sleep(1);
  {
    const LoopMount mount(disk, "rw");
    ASSERT_TRUE(mount.ok());
    const std::string& top = mount.path();
    FillStrangeTree(top);
    for (const char* directory : {"/same/deep/er", "/some", "/chmod", "/less", "/more", "/od[d]*na?me\\"}) {
      fs::create_directories(top + directory);
      for (int i = 0; i < 20; ++i) std::ofstream(fmt::format("{}{}/{}", top, directory, i)) << std::string(9999, 'x');
    }
    std::ofstream(top + "/some/[a-z]*") << "odd";
    std::ofstream(top + "/some/new\nline ") << "odd";
    fs::create_hard_link(top + "/some/1", top + "/some/one");
    fs::create_hard_link(top + "/same/deep/er/1", top + "/more/one");
    std::ofstream(top + "/sparse") << "hello";
    fs::resize_file(top + "/sparse", 300 << 20);
    sleep(3);
    std::ofstream(top + "/last") << "last";
  }
  ImportOptions options = Options(disk);
  options.reader = "direct";
  const auto first = Must(Import(*library_, options));
  {
    const LoopMount mount(disk, "rw");
    ASSERT_TRUE(mount.ok());
    const std::string& top = mount.path();
    std::ofstream(top + "/some/7", std::ios::in | std::ios::out) << "changed";
    std::ofstream(top + "/some/[a]") << "new, and like a pattern";
    fs::permissions(top + "/chmod", fs::perms::owner_all);
    fs::permissions(top + "/some/8", fs::perms::owner_all);
    fs::remove(top + "/less/3");
    fs::create_directory(top + "/more/new");
    ASSERT_TRUE(Shell(fmt::format("cp -a {0}/some {0}/some-copy && mkfifo {0}/fifo && ln {0}/fifo {0}/fifo-link", top)));
    fs::create_hard_link(top + "/some/2", top + "/some-copy/two");
    const std::string sparse = top + "/sparse-too '\"$(false)";
    std::ofstream(sparse) << "hello";
    fs::resize_file(sparse, 400 << 20);
    std::fstream(sparse, std::ios::in | std::ios::out).seekp(200'000'000) << "in the middle";
  }
  options.reader = "guestfs";
  const auto second = Must(Import(*library_, options));
  std::fprintf(stderr, "appliance %.1f s, whole import %.1f s, %llu of %llu unchanged\n", second.appliance_seconds,
               second.seconds, static_cast<unsigned long long>(second.unchanged_files),
               static_cast<unsigned long long>(second.files));
  EXPECT_TRUE(second.changed);
  EXPECT_GT(second.unchanged_files, 5 * 20U);
  {
    const LoopMount mount(disk, "ro");
    ASSERT_TRUE(mount.ok());
    EXPECT_TRUE(VersionEqualsDirectory(library_, Head("disk"), mount.path()));
  }
  options.reader = "direct";
  options.paranoid = true;
  const auto all = Must(Import(*library_, options));
  EXPECT_FALSE(all.changed);
  EXPECT_EQ(all.unchanged_files, 0U);
}

// Two filesystems, no system; as qcow2; with excludes. And the second import of the same finds no change.
TEST_F(GuestfsImportTest, WithoutASystemFilesystemsAreDirectories) {
  NEED_APPLIANCE();
  const std::string disk = MakeDisk("disk.raw", 64);
  {
    const LoopMount mount(disk, "rw");
    ASSERT_TRUE(mount.ok());
    fs::create_directories(mount.path() + "/cache/deep");
    std::ofstream(mount.path() + "/cache/deep/f") << "left out";
    std::ofstream(mount.path() + "/cache/first") << "two names";
    fs::create_hard_link(mount.path() + "/cache/first", mount.path() + "/second");
    std::ofstream(mount.path() + "/kept.o") << "left out";
    std::ofstream(mount.path() + "/kept") << "kept";
  }
  const std::string qcow2 = directory_ / "disk.qcow2";
  ASSERT_TRUE(Shell(fmt::format("qemu-img convert -O qcow2 {} {}", disk, qcow2)));
  ImportOptions options = Options(qcow2);
  options.exclude = {"/sda1/cache", "*.o"};
  const auto first = Must(Import(*library_, options));
  const Manifest manifest = Head("disk");
  EXPECT_TRUE(manifest.inspection.IsZero());
  EXPECT_EQ(manifest.mounts, (std::vector<Mount>{{"/sda1", "ext4", "/dev/sda1"}}));
  EXPECT_EQ(manifest.root.mode, 0755);
  const TreeReader reader(library_);
  std::string bytes;
  Must(reader.Read(Must(reader.Find(manifest.root, "/sda1/second")), 0, 100, &bytes));
  EXPECT_EQ(bytes, "two names");
  EXPECT_TRUE(manifest.links.IsZero());
  EXPECT_TRUE(reader.Find(manifest.root, "/sda1/kept"));
  EXPECT_FALSE(reader.Find(manifest.root, "/sda1/kept.o"));
  EXPECT_FALSE(reader.Find(manifest.root, "/sda1/cache"));
  const auto again = Must(Import(*library_, options));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.tree, first.tree);
}

// FAT of every width, without a system, through either reader.
TEST_F(GuestfsImportTest, FatIsWhatLinuxShows) {
  NEED_APPLIANCE();
  std::vector<std::string> images;
  for (const int bits : {12, 16, 32}) {
    images.push_back(directory_ / fmt::format("fat{}.raw", bits));
    std::ofstream(images.back(), std::ios::binary) << OddFatImage(bits).bytes;
  }
  ImportOptions options = Options(images[0], "machine");
  options.more_disks = {images[1], images[2]};
  Must(Import(*library_, options));
  const Manifest machine = Head("machine");
  const TreeReader reader(library_);
  for (size_t i = 0; i < images.size(); ++i) {
    ImportOptions direct = Options(images[i], fmt::format("direct{}", i));
    direct.reader = "direct";
    Must(Import(*library_, direct));
    const Entry read = Must(reader.Find(Head(direct.branch).root, "/sda"));
    const Entry shown = Must(reader.Find(machine.root, fmt::format("/sd{}", "abc"[i])));
    EXPECT_EQ(read.id, shown.id) << images[i];
    EXPECT_EQ(read.mode, shown.mode);
    EXPECT_EQ(read.mtime_sec, shown.mtime_sec);
  }
}

// libguestfs cannot list them here: the host's rpm is not of the guest's kind. The reader of the direct road can.
TEST_F(GuestfsImportTest, RpmPackagesAreListed) {
  NEED_APPLIANCE();
  if (!Shell("command -v rpmbuild")) GTEST_SKIP() << "rpmbuild is not installed";
  const std::string root = directory_ / "root", spec = directory_ / "spec", disk = directory_ / "disk.raw";
  std::ofstream(spec) << "Name: openssl\nEpoch: 1\nVersion: 3.0.9\nRelease: 7.fc39\nSummary: s\nLicense: none\n"
                         "BuildArch: noarch\n%description\nnothing\n%files\n";
  ASSERT_TRUE(Shell(fmt::format("rpmbuild --quiet -bb --define '_topdir {0}' {1} && rpm --root {2} --define '_db_backend sqlite' "
                                "--define '_dbpath /usr/lib/sysimage/rpm' -i --justdb {0}/RPMS/noarch/*.rpm",
                                directory_ / "build", spec, root)));
  for (const char* name : {"etc", "bin", "var/lib"}) fs::create_directories(root + "/" + name);
  std::ofstream(root + "/etc/fstab") << "/dev/sda / ext4 defaults 0 0\n";
  std::ofstream(root + "/etc/fedora-release") << "Fedora release 39 (Thirty Nine)\n";
  std::ofstream(root + "/etc/os-release") << "ID=fedora\nVERSION_ID=39\nPRETTY_NAME='Fedora Linux 39'\n";
  ASSERT_TRUE(Shell(fmt::format("truncate -s 64M {0} && mkfs.ext4 -q -F -d {1} {0}", disk, root)));
  const auto report = Must(Import(*library_, Options(disk)));
  const auto system =
      Must(DecodeSystem(Must(library_->objects().ReadObject(ObjectKind::kInspection, Head("disk").inspection))));
  EXPECT_EQ(system.distro, "fedora");
  EXPECT_EQ(system.packages, (std::vector<Package>{{"openssl", "1:3.0.9-7.fc39", "noarch"}}));
  EXPECT_TRUE(report.omissions.empty()) << report.omissions.front();
}

TEST_F(GuestfsImportTest, RefusesBeforeTheLaunch) {
  const std::string file = directory_ / "image";
  const auto write = [&](const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; };
  write("");
  EXPECT_EQ(ErrorOf(Options(file), "empty"), EINVAL);
  write(std::string("LUKS\xba\xbe\0\2", 8) + std::string(1 << 20, 'x'));
  EXPECT_EQ(ErrorOf(Options(file), "encrypted"), EINVAL);
  EXPECT_EQ(ErrorOf(Options(directory_ / "nowhere"), "No such file"), ENOENT);
  EXPECT_EQ(ErrorOf(Options("/dev/null"), "neither a directory nor a disk image"), EINVAL);
  ImportOptions options = Options(file);
  options.format = "qcow2";
  EXPECT_EQ(ErrorOf(options, "no qcow2 image"), EINVAL);
  options.format = "floppy";
  EXPECT_EQ(ErrorOf(options, "floppy"), EINVAL);
  write("# Disk DescriptorFile\nRW 63 FLAT \"/etc/shadow\" 0\n");
  EXPECT_EQ(ErrorOf(Options(file), "names other files"), EINVAL);

  // A partition table that speaks of more than there is.
  std::string table(1 << 20, '\0');
  table[446 + 4] = '\x83';
  table[446 + 9] = 8;   // from sector 2048
  table[446 + 14] = 1;  // 65536 sectors
  table[510] = '\x55';
  table[511] = '\xaa';
  write(table);
  EXPECT_EQ(ErrorOf(Options(file), "truncated"), EINVAL);
  table.resize((2048 + 65536) * 512);
  write(table);
  EXPECT_EQ(Must(DetectDiskFormat(file, "")), "raw");

  if (!Shell("command -v qemu-img")) GTEST_SKIP() << "qemu-img is not installed";
  const std::string image = directory_ / "disk.qcow2";
  for (const char* kind : {"qcow2", "vdi", "vhdx", "vpc", "vmdk"}) {
    ASSERT_TRUE(Shell(fmt::format("qemu-img convert -f raw -O {} {} {}", kind, file, image)));
    EXPECT_EQ(Must(DetectDiskFormat(image, "")), kind);
  }
  ASSERT_TRUE(Shell(fmt::format("head -c 8M /dev/urandom > {}", file)));
  ASSERT_TRUE(Shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", file, image)));
  EXPECT_EQ(Must(DetectDiskFormat(image, "")), "qcow2");
  fs::resize_file(image, fs::file_size(image) / 2);
  EXPECT_EQ(ErrorOf(Options(image), "truncated"), EINVAL);
  fs::resize_file(image, 40);
  EXPECT_EQ(ErrorOf(Options(image), "truncated"), EINVAL);
  // A backing file would be a way to any file of this machine.
  ASSERT_TRUE(Shell(fmt::format("qemu-img create -q -f qcow2 -b /etc/passwd -F raw {} 1M", image)));
  EXPECT_EQ(ErrorOf(Options(image), "--format qcow2"), EINVAL);
  EXPECT_EQ(Must(DetectDiskFormat(image, "qcow2")), "qcow2");
  ASSERT_TRUE(Shell(fmt::format("qemu-img create -q -f qcow2 -o data_file={},data_file_raw=on {} 8M", file, image)));
  EXPECT_EQ(ErrorOf(Options(image), "--format qcow2"), EINVAL);
}

TEST_F(GuestfsImportTest, RefusesWhatHoldsNoFiles) {
  NEED_APPLIANCE();
  const std::string file = directory_ / "image";
  ASSERT_TRUE(Shell(fmt::format("head -c 4M /dev/urandom > {}", file)));
  EXPECT_EQ(ErrorOf(Options(file), "no filesystem found"), EINVAL);
  EXPECT_FALSE(Must(library_->Refresh()));
}

// What the direct reader refuses, or does not read, is held there too: exabytes of holes, where the filesystem tells of
// them and where it does not, and a directory that is in itself.
TEST_F(GuestfsImportTest, HarmIsHeldInTheApplianceToo) {
  NEED_APPLIANCE();
  const std::string disk = directory_ / "disk.raw", place = directory_ / "mnt";
  fs::create_directory(place);
  const auto fill = [&](const std::string& mkfs, const std::string& mount, const std::string& commands) {
    fs::remove(disk);
    ASSERT_TRUE(Shell(fmt::format("truncate -s 320M {0} && {1} {0} && {2} {0} {3} && ({4}); umount {3}", disk, mkfs,
                                  mount, place, commands)));
  };
  fill("mkfs.xfs -q", "mount -o loop", fmt::format("truncate -s 7E {0}/sparse && ls -l {0} | grep -q 8070450532247928832", place));
  EXPECT_EQ(ErrorOf(Options(disk), "bytes in holes"), E2BIG);
  fill("mkntfs -q -F", "ntfs-3g", fmt::format("truncate -s 15T {}/sparse", place));
  EXPECT_EQ(ErrorOf(Options(disk), "bytes in holes"), E2BIG);
  fill("mkfs.ext4 -q -F -O ^metadata_csum", "mount -o loop", fmt::format("mkdir -p {}/a/b", place));
  ASSERT_TRUE(Shell(fmt::format("debugfs -w -R 'ln /a /a/b/loop' {}", disk)));
  EXPECT_NE(ErrorOf(Options(disk), ""), 0);
  EXPECT_FALSE(Must(library_->Refresh()));
}

TEST_F(GuestfsImportTest, AnInterruptEndsTheAppliance) {
  NEED_APPLIANCE();
  const std::string disk = MakeDisk("disk.raw", 64);
  std::atomic<bool> interrupted{false};
  ImportOptions options = Options(disk);
  options.interrupted = &interrupted;
  std::thread user([&] {
    sleep(2);
    interrupted = true;
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(ErrorOf(options, "interrupted"), EINTR);
  user.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
  EXPECT_FALSE(Must(library_->Refresh()));
}

}  // namespace
}  // namespace mirage::testing
