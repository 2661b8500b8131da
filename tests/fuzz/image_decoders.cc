#include "tests/fuzz/image_decoders.h"

#include <endian.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "indexer/container_files.h"
#include "indexer/container_image.h"
#include "indexer/disk_format.h"
#include "indexer/layer_tree.h"
#include "indexer/ova.h"
#include "indexer/reader_protocol.h"
#include "indexer/sparse_file.h"
#include "indexer/tar_source.h"
#include "indexer/tar_stream.h"
#include "tests/indexer/tar_bytes.h"

namespace mirage::testing {
namespace {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// A file of these bytes that is in no directory.
class NamelessFile {
 public:
  explicit NamelessFile(std::string_view bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    Require(fd_ >= 0, "a file in memory");
    Write(0, bytes);
  }
  ~NamelessFile() { close(fd_); }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;
  void Write(off_t at, std::string_view bytes) const {
    Require(pwrite(fd_, bytes.data(), bytes.size(), at) == static_cast<ssize_t>(bytes.size()), "a file in memory");
  }
  void Resize(off_t size) const { Require(ftruncate(fd_, size) == 0, "a file in memory"); }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd_); }

 private:
  const int fd_;
};

// ---- tar

TarStream Stream(std::string_view& bytes) {
  return TarStream([&bytes](char* out, size_t size) -> Result<size_t> {
    const size_t n = std::min(size, bytes.size());
    std::memcpy(out, bytes.data(), n);
    bytes.remove_prefix(n);
    return n;
  });
}

void RunTar(std::string_view bytes) {
  TarStream tar = Stream(bytes);
  for (int members = 0; members < 10'000; ++members) {
    const auto member = tar.Next();
    if (!member || !*member) return;
    const std::string path = "/" + (*member)->path + "/";
    Require(path.find('\0') == std::string::npos, "a path has no zero byte");
    Require(path == "//" || path.find("//") == std::string::npos, "a path has no empty names");
    Require(path.find("/../") == std::string::npos, "a path stays in the tree");
    for (uint64_t read = 0; members % 2 == 0;) {  // the others' data is skipped
      const auto piece = tar.ReadData(64 << 10);
      if (!piece) return;
      if (piece->empty()) break;
      read += piece->size();
      Require(read <= (*member)->size, "no more data than the header says");
    }
  }
}
std::string Link(const std::string& name, const std::string& target, char type) {
  return Extended(Record("linkpath", target)) + Header(name, type, 0);
}
std::vector<std::string> TarSeeds() {
  const std::string one = Record("GNU.sparse.major", "1") + Record("GNU.sparse.realsize", "1000");
  return {Header("./a", '0', 6) + Padded("hello\n") + kEnd,
          Extended(Record("mtime", "1700000000.123456789") + Record("SCHILY.xattr.user.a", "b")) +
              Header("./b", '0', 6) + Padded("hello\n") + Header("./c/", '5', 0) + kEnd,
          Extended(one) + Header("s", '0', 517) + Padded("1\n990\n5\n") + Padded("hello") + kEnd,
          Extended(Record("GNU.sparse.size", "9") + Record("GNU.sparse.map", "0,3,5,1")) + Header("s", '0', 4) +
              Padded("abcd") + kEnd,
          Header("long", 'L', 3) + Padded("abc") + Header("x", 'S', 0) + kEnd};
}

// The same archive as two layers: whiteouts take from the first what the second has not.
void RunLayers(std::string_view bytes) {
  LayerTree tree(32 << 20);
  for (int layer = 0; layer < 2; ++layer) {
    std::string_view rest = bytes;
    TarStream tar = Stream(rest);
    tar.AllowMissingEnd();
    tree.Begin();
    for (;;) {
      const auto member = tar.Next();
      if (!member) return;
      if (!*member) break;
      if (!tree.Take(**member)) return;
    }
    if (!tree.End()) return;
  }
  for (const LayerFile& file : tree.Files()) {
    Require(!file.paths.empty(), "a file has a name");
    for (const std::string& path : file.paths) {
      Require(("/" + path + "/").find("/../") == std::string::npos && !path.starts_with('/'),
              "a path stays in the tree");
    }
  }
  for (const std::string& path : tree.MadeDirectories()) Require(!path.starts_with('/'), "a path stays in the tree");
}
std::vector<std::string> LayerSeeds() {
  const auto file = [](const std::string& name) { return Header(name, '0', 1) + Padded("x"); };
  return {Header("d/", '5', 0) + file("d/a") + file("d/.wh.b") + file("e/f") + file("e/.wh..wh..opq") + kEnd,
          Header("usr/lib/", '5', 0) + Link("lib", "usr/lib", '2') + file("lib/x") + Link("y", "lib/x", '1') +
              Link("up", "../../usr", '2') + file("up/z") + Link("loop", "loop", '2') + kEnd};
}

// ---- containers: an archive as it comes, as either kind

void RunContainer(std::string_view bytes) {
  const NamelessFile file(bytes);
  ContainerFiles::ArchiveOptions options;
  options.path = file.path();
  options.scratch = "/nowhere";  // what is compressed ends here
  options.any = true;
  options.name_bytes = 32 << 20;
  const auto files = ContainerFiles::OpenArchive(options);
  if (!files || !*files) return;
  for (const char* format : {"oci", "docker"}) {
    const auto image = ChooseContainerImage(**files, {format, "", ""});
    if (!image) continue;
    Require(!image->layers.empty() && image->layers.size() <= 1024, "an image has layers");
    for (const ContainerLayer& layer : image->layers) {
      Require(layer.diff_id.size() == 64, "a layer has a digest");
      Require(layer.bytes.size() <= bytes.size(), "a layer lies in the archive");
    }
  }
}
std::vector<std::string> ContainerSeeds() {
  const auto file = [](const std::string& name, const std::string& text) {
    return Header(name, '0', text.size()) + Padded(text);
  };
  const std::string hex(64, 'a');
  const std::string config = fmt::format(
      R"({{"os":"linux","architecture":"amd64","config":{{"Env":["A=b"]}},"rootfs":{{"diff_ids":["sha256:{}"]}},)"
      R"("history":[{{"created_by":"step"}},{{"empty_layer":true}}]}})",
      hex);
  const std::string manifest =
      fmt::format(R"({{"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{0}"}},)"
                  R"("layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{0}"}}]}})",
                  HashBytes(config).Hex());
  return {file("1/layer.tar", "x") + Link("2/layer.tar", "../1/layer.tar", '2') + file("c.json", config) +
              file("manifest.json", R"([{"Config":"c.json","RepoTags":["a:1"],"Layers":["1/layer.tar"]}])") + kEnd,
          file("oci-layout", "{}") + file("blobs/sha256/" + HashBytes(config).Hex(), config) +
              file("blobs/sha256/" + HashBytes(manifest).Hex(), manifest) +
              file("index.json", fmt::format(R"({{"manifests":[{{"digest":"sha256:{}","platform":{{"os":"linux",)"
                                             R"("architecture":"amd64"}}}}]}})",
                                             HashBytes(manifest).Hex())) +
              kEnd};
}

// ---- disks

void RunOvf(std::string_view bytes) {
  if (const auto disks = ParseOvf(bytes)) Require(!disks->empty() && disks->size() <= 64, "a machine has disks");
}
std::vector<std::string> OvfSeeds() {
  return {
      "<?xml version=\"1.0\"?><!-- c --><E><File ovf:id='f' ovf:href=\"a&amp;b.vmdk\" compression='gzip'/>"
      "<![CDATA[<]]><Disk ovf:fileRef='f'/></E>"};
}

// Of a vhdx, whose tables lie behind 192 KiB, the input is a first sector and those tables.
void RunDiskFormat(std::string_view bytes) {
  constexpr size_t kSector = 512;
  const NamelessFile file(bytes);
  if (bytes.starts_with("vhdxfile") && bytes.size() > kSector) {
    file.Resize(8 << 20);
    file.Write(192 << 10, bytes.substr(kSector));
  }
  const auto format = DetectDiskFormat(file.path(), "", false);
  if (format) Require(!bytes.empty() && !format->empty(), "an empty file is no disk");
  const auto raw = DetectDiskFormat(file.path(), "raw", true);
  if (raw) Require(*raw == "raw", "what is asked for is believed");
  static_cast<void>(LooksLikeOva(bytes));
  static_cast<void>(LooksLikeTar(bytes));
}
template <typename T>
void Set(std::string& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}
std::vector<std::string> DiskFormatSeeds() {
  std::string qcow2(4 * 512, '\0');
  std::memcpy(qcow2.data(), "QFI\xfb\0\0\0\2", 8);
  Set(qcow2, 20, htobe32(9));  // clusters of 512 bytes
  Set(qcow2, 36, htobe32(2));  // two tables
  Set(qcow2, 40, htobe64(512));
  Set(qcow2, 512, htobe64(1024));
  Set(qcow2, 1024, htobe64(1536));
  std::string vmdk(32 * 512, '\0');
  std::memcpy(vmdk.data(), "KDMV", 4);
  Set(vmdk, 12, htole64(256));
  Set(vmdk, 20, htole64(128));
  Set(vmdk, 28, htole64(1));
  Set(vmdk, 44, htole32(2));
  Set(vmdk, 56, htole64(25));
  Set(vmdk, 25 * 512, htole32(26));
  Set(vmdk, 26 * 512, htole32(27));
  const std::string description = "createType=\"monolithicSparse\"\n";
  vmdk.replace(512, description.size(), description);
  std::string vdi(1536, '\0');
  Set(vdi, 0x40, htole32(0xbeda107f));
  Set(vdi, 0x4c, htole32(1));
  Set(vdi, 0x154, htole32(512));
  Set(vdi, 0x158, htole32(1024));
  Set(vdi, 0x170, htole64(512));
  Set(vdi, 0x178, htole32(512));
  Set(vdi, 0x180, htole32(1));
  Set(vdi, 0x184, htole32(1));
  std::string vhd(4 * 512 + 1024, '\0');
  std::memcpy(vhd.data(), "conectix", 8);
  Set(vhd, 16, htobe64(512));
  Set(vhd, 60, htobe32(3));
  std::memcpy(vhd.data() + 512, "cxsparse", 8);
  Set(vhd, 512 + 16, htobe64(1536));
  Set(vhd, 512 + 28, htobe32(1));
  Set(vhd, 512 + 32, htobe32(512));
  Set(vhd, 1536, htobe32(3));
  std::string vhdx(512 + 192, '\0');
  std::memcpy(vhdx.data(), "vhdxfile", 8);
  std::memcpy(vhdx.data() + 512, "regi", 4);
  Set(vhdx, 512 + 8, htole32(2));
  std::memcpy(vhdx.data() + 512 + 16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", 16);
  Set(vhdx, 512 + 32, htole64(192 << 10));
  Set(vhdx, 512 + 40, htole32(1 << 20));
  std::memcpy(vhdx.data() + 512 + 48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16);
  Set(vhdx, 512 + 64, htole64((192 << 10) + 80));
  Set(vhdx, 512 + 72, htole32(1 << 20));
  Set(vhdx, 512 + 80 + 10, htole16(1));
  std::memcpy(vhdx.data() + 512 + 112, "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 16);
  Set(vhdx, 512 + 128, htole32(96));
  std::string raw(1024, '\0');
  raw[446 + 4] = '\x83';
  Set(raw, 446 + 12, htole32(1));
  raw.replace(510, 2, "\x55\xaa");
  return {qcow2, vmdk, vdi, vhd, vhdx, raw, "# Disk DescriptorFile\n", std::string("LUKS\xba\xbe", 6)};
}

// ---- what the disk reader and the appliance say

void RunFilefrag(std::string_view bytes) {
  const auto ranges = ParseFilefrag(bytes);
  if (!ranges) return;
  uint64_t end = 0;
  for (const auto& [begin, length] : *ranges) {
    Require(begin >= end && length > 0, "ranges ascend");
    end = begin + length - 1;
  }
}
std::vector<std::string> FilefragSeeds() {
  return {
      "Filesystem type is: ef53\nFile size of x is 16384 (4 blocks of 4096 bytes)\n"
      " ext:     logical_offset:        physical_offset: length:   expected: flags:\n"
      "   0:     4096..    8191:     40960..     45055:   4096:            last,eof\nx: 1 extent found\n",
      "x: 0 extents found\n"};
}

// The first byte chooses the record.
template <typename Decoded, typename Encoded>
void Again(const Decoded& decoded, std::string_view bytes, const Encoded& encode) {
  if (decoded) Require(encode(*decoded).size() <= bytes.size(), "what is read is no longer than what was sent");
}
void RunReaderRecord(std::string_view bytes) {
  if (bytes.empty()) return;
  const char kind = bytes[0];
  bytes.remove_prefix(1);
  const auto encode = [](const auto& record) { return Encode(record); };
  switch (kind) {
    case 'p':
      return Again(DecodePartition(bytes), bytes, encode);
    case 'e': {
      const auto record = DecodeEntryRecord(bytes);
      if (record) Require(IsCleanPath(record->path), "a path is clean");
      return Again(record, bytes, encode);
    }
    case 'x':
      return Again(DecodeExtents(bytes), bytes, encode);
    case 'l':
      return Again(DecodeLink(bytes), bytes, encode);
    case 'k':
      return Again(DecodeLookup(bytes), bytes, encode);
    default: {
      const auto problem = DecodeProblem(bytes);
      if (problem) Require(problem->text.find('\n') == std::string::npos, "an error is one line");
      return Again(problem, bytes, encode);
    }
  }
}
std::vector<std::string> ReaderRecordSeeds() {
  EntryRecord file;
  file.path = "etc/passwd";
  file.xattrs = {{"user.a", "1"}};
  EntryRecord link = file;
  link.entry.type = FileType::kSymlink;
  link.target = "/etc";
  PartitionRecord partition;
  partition.type = "ext4";
  return {"e" + Encode(file),
          "e" + Encode(link),
          "p" + Encode(partition),
          "x" + Encode(std::vector<Extent>{{0, 4096, 4096}}),
          "l" + Encode(LinkRecord{"b", "a"}),
          "k" + Encode(LookupRecord{"etc", 2}),
          "?" + Encode(ProblemRecord{EIO, "damaged"})};
}

}  // namespace

const std::vector<FuzzTarget>& ImageFuzzTargets() {
  static const std::vector<FuzzTarget> kTargets = {
      {"tar_stream", RunTar, TarSeeds},
      {"layers", RunLayers, LayerSeeds},
      {"container", RunContainer, ContainerSeeds},
      {"ovf", RunOvf, OvfSeeds},
      {"disk_format", RunDiskFormat, DiskFormatSeeds},
      {"filefrag", RunFilefrag, FilefragSeeds},
      {"reader_record", RunReaderRecord, ReaderRecordSeeds},
  };
  return kTargets;
}

}  // namespace mirage::testing
