// Importing container images: what umoci makes, compared with what umoci unpacks; archives in the forms of `docker save`,
// made by hand; layers, platforms, and images that mean harm.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include "indexer/importer.h"
#include "store/object_id.h"
#include "tests/indexer/host_tree.h"
#include "tests/indexer/tar_bytes.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

std::string Link(const std::string& name, const std::string& target, char type) {
  return Extended(Record("linkpath", target)) + Header(name, type, 0);
}
std::string File(const std::string& name, const std::string& bytes) {
  return Header(name, '0', bytes.size()) + Padded(bytes);
}

class ContainerImportTest : public LibraryTest {
 protected:
  ImportOptions Options(const std::string& source, const std::string& branch = "image") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    options.say = [](std::string_view) {};
    return options;
  }
  Manifest Read(const std::string& branch) {
    Must(library_->Refresh());
    const auto head = Must(library_->snapshot()->Branch(branch));
    if (!head) throw std::runtime_error("no branch " + branch);
    return Must(ReadManifest(library_->objects(), head->manifest));
  }
  std::string ErrorOf(const ImportOptions& options) {
    const auto report = Import(*library_, options);
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    EXPECT_FALSE(report);
    return report ? "" : report.error().message;
  }
  // Every path below the root, with a file's content and a link's target.
  std::map<std::string, std::string> Listing(const std::string& branch) {
    const TreeReader reader(library_);
    std::map<std::string, std::string> out;
    Must(reader.Walk(Read(branch).root, [&](const std::string& path, const Entry& entry) -> Result<bool> {
      std::string& what = out[path];
      if (entry.is_directory()) what = "/";
      if (entry.type == FileType::kSymlink) what = "-> " + entry.target;
      if (entry.type == FileType::kRegular) Must(reader.Read(entry, 0, entry.size, &what));
      return true;
    }));
    return out;
  }

  void Write(const std::string& path, const std::string& bytes) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  // Writes a blob of the layout; gives its descriptor.
  Json Blob(const std::string& bytes, const std::string& type) {
    const std::string hex = HashBytes(bytes).Hex();
    Write(layout_ + "/blobs/sha256/" + hex, bytes);
    return {{"mediaType", type}, {"digest", "sha256:" + hex}, {"size", bytes.size()}};
  }
  static std::string Config(const std::vector<std::string>& layers, const std::string& arch = "amd64") {
    Json config = {{"os", "linux"}, {"architecture", arch}, {"rootfs", {{"type", "layers"}}}};
    config["config"] = {{"Env", {"A=b"}}, {"Entrypoint", {"/bin/sh"}}};
    for (const std::string& layer : layers) {
      config["rootfs"]["diff_ids"].push_back("sha256:" + HashBytes(layer).Hex());
      config["history"].push_back({{"created_by", fmt::format("step {}", config["rootfs"]["diff_ids"].size())}});
      config["history"].push_back({{"created_by", "ENV"}, {"empty_layer", true}});
    }
    return config.dump();
  }
  Json ImageManifest(const std::vector<std::string>& layers, const std::string& arch = "amd64") {
    Json manifest = {{"schemaVersion", 2}, {"layers", Json::array()}};
    manifest["config"] = Blob(Config(layers, arch), "application/vnd.oci.image.config.v1+json");
    for (const std::string& layer : layers) {
      manifest["layers"].push_back(Blob(layer, "application/vnd.oci.image.layer.v1.tar"));
    }
    return Blob(manifest.dump(), "application/vnd.oci.image.manifest.v1+json");
  }
  void WriteIndex(const Json& manifests) {
    Write(layout_ + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    Write(layout_ + "/index.json", Json{{"schemaVersion", 2}, {"manifests", manifests}}.dump());
  }
  void WriteLayout(const std::vector<std::string>& layers) {
    fs::remove_all(layout_);
    WriteIndex(Json::array({ImageManifest(layers)}));
  }
  std::map<std::string, std::string> ListingOf(const std::vector<std::string>& layers) {
    WriteLayout(layers);
    ImportOptions options = Options(layout_);
    options.allow_empty = true;
    Must(Import(*library_, options));
    return Listing("image");
  }

  const std::string layout_ = directory_ / "layout";
};

using Tree = std::map<std::string, std::string>;

TEST_F(ContainerImportTest, WhatUmociMakesIsWhatUmociUnpacks) {
  if (geteuid() != 0) GTEST_SKIP() << "unpacking an image needs root";
  if (!Shell("command -v umoci")) GTEST_SKIP() << "umoci is not installed";
  const std::string bundle = directory_ / "bundle", rootfs = bundle + "/rootfs";
  const auto umoci = [&](const std::string& arguments) { return Shell("umoci " + arguments); };
  const std::string image = layout_ + ":v1";
  ASSERT_TRUE(umoci("init --layout " + layout_) && umoci("new --image " + image));
  ASSERT_TRUE(umoci(fmt::format("unpack --image {} {}", image, bundle)));
  // umoci gives device nodes, sockets and xattrs of its own kinds up; what it keeps is compared.
  ASSERT_TRUE(Shell(fmt::format("cd {} && mkdir -p etc usr/lib usr/bin var/lib/dpkg data/deep && ln -s usr/lib lib && "
                                "printf 'ID=debian\\nVERSION_ID=12\\nPRETTY_NAME=Deb\\n' > etc/os-release && "
                                "printf 'Package: a\\nStatus: install ok installed\\nVersion: 1\\nArchitecture: all\\n' "
                                "> var/lib/dpkg/status && seq 100000 > usr/bin/tool && ln usr/bin/tool usr/bin/same && "
                                "echo old > data/deep/old && echo stays > data/stays && chmod 4755 usr/bin/tool && "
                                "chown 12345:54321 data/stays && mkfifo data/fifo && ln -s ../nowhere data/link && "
                                "setfattr -n user.note -v kept data/stays && touch -d @1.5 data/stays", rootfs)));
  ASSERT_TRUE(umoci(fmt::format("repack --image {} {}", image, bundle)));
  fs::remove_all(bundle);
  ASSERT_TRUE(umoci(fmt::format("unpack --image {} {}", image, bundle)));
  ASSERT_TRUE(Shell(fmt::format("cd {} && rm -r data/deep && rm data/link usr/bin/same && echo new > usr/lib/new && "
                                "mkdir data/link && echo in > data/link/in && rm data/stays && mkdir data/stays && "
                                "echo x >> usr/bin/tool",
                                rootfs)));
  ASSERT_TRUE(umoci(fmt::format("repack --image {}:v2 {}", layout_, bundle)));
  fs::remove_all(bundle);
  ASSERT_TRUE(umoci(fmt::format("unpack --image {}:v2 {}", layout_, bundle)));

  EXPECT_NE(ErrorOf(Options(layout_)).find("choose by --image: v1, v2"), std::string::npos);
  ImportOptions options = Options(layout_);
  options.image = "v2";
  const auto report = Must(Import(*library_, options));
  const auto unpacked = Must(Import(*library_, Options(rootfs, "directory")));
  EXPECT_EQ(Listing("image"), Listing("directory"));
  EXPECT_EQ(report.tree, unpacked.tree);
  EXPECT_EQ(Read("image").links, Read("directory").links);
  EXPECT_TRUE(report.omissions.empty());
  EXPECT_NE(Read("image").source.find("(v2)"), std::string::npos);

  // As archives, and by layers: the last version is the same, the one before is v1.
  for (const char* how : {"-cf", "-czf", "--zstd -cf"}) {
    ASSERT_TRUE(Shell(fmt::format("tar -C {} {} {}/archive .", layout_, how, std::string(directory_ / ""))));
    options.source = directory_ / "archive";
    options.branch = "archive";
    EXPECT_EQ(Must(Import(*library_, options)).tree, report.tree) << how;
  }
  options = Options(layout_, "layers");
  options.image = "v2";
  options.tag = "done";
  options.layers = true;
  const auto by_layers = Must(Import(*library_, options));
  ASSERT_EQ(by_layers.layers.size(), 2u);
  EXPECT_EQ(by_layers.layers[1].tag, "done");
  EXPECT_EQ(by_layers.tree, report.tree);
  EXPECT_EQ(Read("layers").links, Read("image").links);
  EXPECT_EQ(Read("layers").parents, std::vector<ObjectId>{by_layers.layers[0].manifest});
  options.image = "v1";
  options.branch = "v1";
  options.layers = false;
  const auto v1 = Must(Import(*library_, options));
  EXPECT_EQ(Must(ReadManifest(library_->objects(), by_layers.layers[0].manifest)).root.id, v1.tree);
  // What is known of the system is the same by all roads but for the image's own words.
  for (const char* branch : {"image", "archive", "layers"}) {
    const Json inspection = Json::parse(
        Must(library_->objects().ReadObject(ObjectKind::kInspection, Read(branch).inspection)));
    EXPECT_EQ(inspection["os"]["product"], "Deb") << branch;
    EXPECT_EQ(inspection["packages"].size(), 1u) << branch;
  }
}

TEST_F(ContainerImportTest, WhiteoutsHideWhatLowerLayersHave) {
  const std::string lower = Header("d/", '5', 0) + File("d/a", "a") + File("d/b", "b") + Header("o/", '5', 0) +
                            File("o/x", "x") + File("top", "t") + Header("d/sub/", '5', 0) + File("d/sub/f", "f") + kEnd;
  EXPECT_EQ(ListingOf({lower, File("d/.wh.a", "") + File("d/.wh.never", "") + File("never/.wh.x", "") +
                                  File(".wh.top", "") + kEnd}),
            (Tree{{"d", "/"}, {"d/b", "b"}, {"d/sub", "/"}, {"d/sub/f", "f"}, {"o", "/"}, {"o/x", "x"}}));
  // Of the same layer nothing is hidden, whichever comes first; what aufs keeps for itself is no file.
  EXPECT_EQ(ListingOf({lower, File("o/new", "n") + File("o/.wh..wh..opq", "") + File("d/.wh.sub", "") +
                                  File("d/sub/g", "g") + File(".wh.top", "") + File("top", "T") +
                                  File(".wh..wh.aufs", "") + File(".wh..wh.plnk/1", "") + kEnd}),
            (Tree{{"d", "/"}, {"d/a", "a"}, {"d/b", "b"}, {"d/sub", "/"}, {"d/sub/g", "g"},
                  {"o", "/"}, {"o/new", "n"}, {"top", "T"}}));
  // A file takes a directory's place, and a directory a file's.
  EXPECT_EQ(ListingOf({lower, File("d", "file") + Header("top/", '5', 0) + File("top/in", "i") + kEnd}),
            (Tree{{"d", "file"}, {"o", "/"}, {"o/x", "x"}, {"top", "/"}, {"top/in", "i"}}));
}

TEST_F(ContainerImportTest, LinksAcrossLayers) {
  // A link in a path is followed in the tree: as on a system whose /lib is a link.
  const std::string lower = Header("usr/lib/", '5', 0) + Link("lib", "usr/lib", '2') + Link("up", "../../../usr", '2') +
                            Link("loop", "loop", '2') + File("a", "A") + Link("b", "a", '1') + kEnd;
  EXPECT_EQ(ListingOf({lower, File("lib/x", "x") + File("up/y", "y") + Link("c", "b", '1') + File(".wh.a", "") + kEnd}),
            (Tree{{"usr", "/"}, {"usr/lib", "/"}, {"lib", "-> usr/lib"}, {"up", "-> ../../../usr"},
                  {"loop", "-> loop"}, {"usr/lib/x", "x"}, {"usr/y", "y"}, {"b", "A"}, {"c", "A"}}));
  const TreeReader reader(library_);
  EXPECT_EQ(Must(reader.LinkGroups(Read("image").links)), (std::map<std::string, std::vector<std::string>>{{"b", {"b", "c"}}}));
  // By layers too, where the file comes from the version below.
  ImportOptions options = Options(layout_, "layers");
  options.layers = true;
  Must(Import(*library_, options));
  EXPECT_EQ(Listing("layers"), Listing("image"));
  EXPECT_EQ(Read("layers").links, Read("image").links);
  EXPECT_EQ(Read("layers").message, "step 2");
  WriteLayout({lower, File("loop/x", "x") + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("too many symbolic links"), std::string::npos);
  WriteLayout({lower, File("a/x", "x") + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("no directory"), std::string::npos);
  WriteLayout({lower, Link("z", "../../etc/shadow", '1') + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("impossible name"), std::string::npos);
  WriteLayout({lower, Link("z", "etc/shadow", '1') + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("not there"), std::string::npos);
}

TEST_F(ContainerImportTest, LayersThatAreThereAreNotMadeAgain) {
  const std::string a = File("a", "1"), b = File("b", "2"), c = File("c", "3") + File("a", "4"), d = File("d", "5");
  ImportOptions options = Options(layout_, "layers");
  options.layers = true;
  const auto import = [&](const std::vector<std::string>& layers) {
    WriteLayout(layers);
    auto report = Must(Import(*library_, options));
    EXPECT_EQ(Listing(options.branch), ListingOf(layers));
    return report;
  };
  const auto first = import({a, b, c});
  ASSERT_EQ(first.layers.size(), 3u);
  const auto again = import({a, b, c});
  EXPECT_FALSE(again.changed);
  EXPECT_TRUE(again.layers.empty());
  EXPECT_EQ(again.version.manifest, first.version.manifest);
  EXPECT_EQ(again.version.tag, "v3");
  EXPECT_EQ(again.tree, first.tree);

  // One layer more, and then another in its place: each is made of what is there, on top of the head.
  const auto more = import({a, b, c, d});
  ASSERT_EQ(more.layers.size(), 1u);
  EXPECT_EQ(Read("layers").parents, std::vector<ObjectId>{first.version.manifest});
  const auto other = import({a, b, d, c});
  ASSERT_EQ(other.layers.size(), 2u);
  EXPECT_EQ(Read("layers").parents, std::vector<ObjectId>{other.layers[0].manifest});
  // An image that was there, but is no longer the head, is made again: its last layer alone.
  const auto back = import({a, b, c});
  ASSERT_EQ(back.layers.size(), 1u);
  EXPECT_EQ(back.tree, first.tree);
  EXPECT_EQ(Read("layers").message, "step 3");

  // The versions of another branch count for one that begins there; what was left out does not.
  options = Options(layout_, "next");
  options.layers = true;
  options.parent = "layers";
  EXPECT_EQ(import({a, b, c, d}).layers.size(), 1u);
  options.parent.clear();
  options.allow_empty = true;
  EXPECT_EQ(import({a, b, c, d}).layers.size(), 1u);
  options.allow_empty = false;
  options.exclude = {"/b"};
  WriteLayout({a, b, c});
  EXPECT_EQ(Must(Import(*library_, options)).layers.size(), 3u);
  EXPECT_FALSE(Must(Import(*library_, options)).changed);
  EXPECT_FALSE(Listing("next").contains("b"));
  options.exclude.clear();
  // Without the lowest, or in another order, none is there.
  EXPECT_EQ(import({b, a}).layers.size(), 2u);
}

TEST_F(ContainerImportTest, AnInterruptedImportByLayersGoesOn) {
  const std::string a = File("a", "1"), b = File("b", "2"), c = File("c", "3");
  ImportOptions options = Options(layout_);
  options.layers = true;
  WriteLayout({a, b, c});
  const std::string third = layout_ + "/blobs/sha256/" + HashBytes(c).Hex();
  fs::rename(third, third + ".away");
  Write(third, File("c", "4"));
  EXPECT_NE(ErrorOf(options).find("is damaged"), std::string::npos);
  EXPECT_EQ(Listing("image"), (Tree{{"a", "1"}, {"b", "2"}}));
  fs::rename(third + ".away", third);
  const auto rest = Must(Import(*library_, options));
  ASSERT_EQ(rest.layers.size(), 1u);
  EXPECT_EQ(rest.version.tag, "v3");
  EXPECT_EQ(Listing("image"), (Tree{{"a", "1"}, {"b", "2"}, {"c", "3"}}));
}

TEST_F(ContainerImportTest, PlatformsAndNames) {
  const auto of = [&](const std::string& arch, const std::string& variant) {
    Json manifest = ImageManifest({File("arch", arch + variant) + kEnd}, arch);
    manifest["platform"] = {{"os", "linux"}, {"architecture", arch}};
    if (!variant.empty()) manifest["platform"]["variant"] = variant;
    return manifest;
  };
  const Json all = {{"manifests", {of("amd64", ""), of("arm64", ""), of("arm", "v6"), of("arm", "v7")}}};
  Json named = Blob(all.dump(), "application/vnd.oci.image.index.v1+json");
  named["annotations"] = {{"org.opencontainers.image.ref.name", "many"}};
  Json other = ImageManifest({File("other", "") + kEnd});
  other["annotations"] = {{"io.containerd.image.name", "docker.io/library/other:1"}};
  WriteIndex(Json::array({named, other}));

  EXPECT_NE(ErrorOf(Options(layout_)).find("--image: docker.io/library/other:1, many"), std::string::npos);
  ImportOptions options = Options(layout_);
  options.image = "many";
  options.platform = "linux/arm64";
  Must(Import(*library_, options));
  EXPECT_EQ(Listing("image"), (Tree{{"arch", "arm64"}}));
  const Json inspection =
      Json::parse(Must(library_->objects().ReadObject(ObjectKind::kInspection, Read("image").inspection)));
  EXPECT_EQ(inspection["os"]["arch"], "aarch64");
  EXPECT_EQ(inspection["container"]["Entrypoint"][0], "/bin/sh");
  options.platform = "linux/arm";
  EXPECT_NE(ErrorOf(options).find("linux/arm/v6, linux/arm/v7"), std::string::npos);
  options.platform = "linux/arm/v7";
  Must(Import(*library_, options));
  EXPECT_EQ(Listing("image"), (Tree{{"arch", "armv7"}}));
  options.platform = "plan9/mips";
  EXPECT_NE(ErrorOf(options).find("choose by --platform: linux/amd64"), std::string::npos);
  options.platform = "linux";
  EXPECT_NE(ErrorOf(options).find("OS/ARCH"), std::string::npos);
  options.platform = "";
  options.image = "other:1";
  Must(Import(*library_, options));
  EXPECT_EQ(Listing("image"), (Tree{{"other", ""}}));
  options.image = "nothing";
  EXPECT_NE(ErrorOf(options).find("no image nothing"), std::string::npos);
  options = Options(directory_ / "directory");
  fs::create_directory(options.source);
  options.layers = true;
  EXPECT_NE(ErrorOf(options).find("no container image"), std::string::npos);
}

TEST_F(ContainerImportTest, DockerSaveInItsOldAndNewForm) {
  const std::string one = Header("d/", '5', 0) + File("d/a", "a") + kEnd, two = File("d/.wh.a", "") + File("b", "b") + kEnd;
  const std::string config = Config({one, two, two}), hex = HashBytes(config).Hex();
  const auto manifest = [&](const std::string& name) {
    const Json image = {{"Config", hex + ".json"},
                        {"RepoTags", Json::array({name})},
                        {"Layers", {"1111/layer.tar", "2222/layer.tar", "3333/layer.tar"}}};
    return Json::array({image}).dump();
  };
  // The third layer is a link to the second, as docker wrote equal ones.
  const auto archive = [&](const std::string& json) {
    return File("1111/VERSION", "1.0") + File("1111/layer.tar", one) + File("2222/layer.tar", two) +
           Link("3333/layer.tar", "../2222/layer.tar", '2') + File(hex + ".json", config) + File("manifest.json", json) +
           File("repositories", "{}") + kEnd;
  };
  const std::string path = directory_ / "saved";
  Write(path, archive(manifest("debian:12")));
  ImportOptions options = Options(path);
  Must(Import(*library_, options));
  const Tree wanted{{"b", "b"}, {"d", "/"}};
  EXPECT_EQ(Listing("image"), wanted);
  EXPECT_NE(Read("image").source.find("debian:12"), std::string::npos);
  options.image = "debian:11";
  EXPECT_NE(ErrorOf(options).find("there are: debian:12"), std::string::npos);
  options = Options(path, "layers");
  options.layers = true;
  EXPECT_EQ(Must(Import(*library_, options)).layers.size(), 3u);
  EXPECT_EQ(Listing("layers"), wanted);
  // Said to be a tar archive, it is one.
  options = Options(path, "files");
  options.format = "tar";
  Must(Import(*library_, options));
  EXPECT_EQ(Listing("files").count("1111/layer.tar"), 1u);
  options.format = "oci";
  EXPECT_NE(ErrorOf(options).find("index.json"), std::string::npos);
  // Names that lead out of the archive, and a link that does.
  const Json out = {{"Config", hex + ".json"}, {"Layers", {"../../etc/passwd", "/etc/passwd", "a"}}};
  Write(path, archive(Json::array({out}).dump()));
  EXPECT_NE(ErrorOf(Options(path)).find("outside of it"), std::string::npos);
  const size_t first_layer = File("1111/VERSION", "1.0").size() + File("1111/layer.tar", one).size();
  Write(path, Link("1111/layer.tar", "../../../etc/passwd", '2') + archive(manifest("x")).substr(first_layer));
  EXPECT_NE(ErrorOf(Options(path)).find("no file 1111/layer.tar"), std::string::npos);
  // The new form: a layout with a manifest.json beside, read either way.
  WriteLayout({one, two});
  const Json index = Json::parse(std::ifstream(layout_ + "/index.json"));
  const std::string own = index["manifests"][0]["digest"].get<std::string>().substr(7);
  const Json document = Json::parse(std::ifstream(layout_ + "/blobs/sha256/" + own));
  const auto place = [](const Json& descriptor) {
    return "blobs/sha256/" + descriptor["digest"].get<std::string>().substr(7);
  };
  const Json modern = {{"Config", place(document["config"])},
                       {"RepoTags", Json::array({"new:1"})},
                       {"Layers", {place(document["layers"][0]), place(document["layers"][1])}}};
  Write(layout_ + "/manifest.json", Json::array({modern}).dump());
  ASSERT_TRUE(Shell(fmt::format("tar -C {} -czf {} .", layout_, path)));
  for (const char* format : {"", "oci", "docker"}) {
    options = Options(path);
    options.format = format;
    options.allow_empty = true;
    Must(Import(*library_, options));
    EXPECT_EQ(Listing("image"), wanted) << format;
  }
}

// What is hidden goes, what a layer has itself stays, in whatever order whiteouts come; and once is enough.
TEST_F(ContainerImportTest, WhiteoutsWithinWhiteouts) {
  std::string lower, upper, path;
  for (int i = 0; i < 300; ++i) {
    path += "d/";
    lower += Header(path, '5', 0) + File(path + "f", "f");
    upper = File(path + ".wh..wh..opq", "") + File(path + ".wh..wh..opq", "") + upper;
    if (path.size() > 90) break;
  }
  const std::string own = File(path + "own", "o");
  const Tree tree = ListingOf({lower + kEnd, upper + own + File(".wh.d", "") + kEnd});
  EXPECT_EQ(tree.size(), path.size() / 2 + 1);
  for (const auto& [name, what] : tree) EXPECT_EQ(what, name.ends_with("own") ? "o" : "/") << name;
  EXPECT_EQ(ListingOf({lower + kEnd, upper + File("x", "") + kEnd}), (Tree{{"d", "/"}, {"x", ""}}));
}

TEST_F(ContainerImportTest, NamesTakeBoundedMemory) {
  std::string layer;
  for (int i = 0; i < 1000; ++i) layer += File(fmt::format("{:090}", i), "");
  ImportOptions options = Options(layout_);
  for (const uint64_t enough : {1U << 17, 1U << 20}) {
    options.name_bytes = enough;
    WriteLayout({layer + kEnd});
    const auto report = Import(*library_, options);
    EXPECT_EQ(report.has_value(), enough == 1 << 20);
    EXPECT_TRUE(report || report.error().code == E2BIG);
  }
  // Of an archive's own members too; and a link's target is no way to have more.
  Write(directory_ / "archive", File("oci-layout", "{}") + layer + kEnd);
  options = Options(directory_ / "archive");
  options.format = "oci";
  options.name_bytes = 1 << 17;
  EXPECT_NE(ErrorOf(options).find("bytes of memory"), std::string::npos);
  WriteLayout({Link("a", std::string(70'000, 'x'), '2') + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("symbolic link of 70000 bytes"), std::string::npos);
}

TEST_F(ContainerImportTest, DocumentsHaveLimits) {
  const std::string layer = File("a", "a") + kEnd;
  Json manifest = ImageManifest({layer});
  manifest["annotations"] = {{"org.opencontainers.image.ref.name", std::string(2000, 'n')}};
  WriteIndex(Json::array({manifest}));
  EXPECT_NE(ErrorOf(Options(layout_)).find("a name of 2000 bytes"), std::string::npos);
  // The same long document again and again.
  const Json padded = Blob(Json{{"x", std::string(4 << 20, 'x').substr(100)}}.dump(), "x");
  Json many = Json::array();
  for (int i = 0; i < 100; ++i) many.push_back(padded);
  WriteIndex(many);
  EXPECT_NE(ErrorOf(Options(layout_)).find("its documents have more than"), std::string::npos);
}

TEST_F(ContainerImportTest, RefusesWhatIsDamagedOrMeansHarm) {
  const std::string layer = File("a", "a") + kEnd;
  // A blob whose bytes are others.
  WriteLayout({layer});
  Write(layout_ + "/blobs/sha256/" + HashBytes(layer).Hex(), File("a", "b") + kEnd);
  EXPECT_NE(ErrorOf(Options(layout_)).find("have the digest"), std::string::npos);
  fs::remove(layout_ + "/blobs/sha256/" + HashBytes(layer).Hex());
  EXPECT_NE(ErrorOf(Options(layout_)).find("is not in the image"), std::string::npos);
  // A link instead of a blob is not followed.
  Write(directory_ / "secret", layer);
  fs::create_symlink(directory_ / "secret", layout_ + "/blobs/sha256/" + HashBytes(layer).Hex());
  EXPECT_NE(ErrorOf(Options(layout_)).find("is not in the image"), std::string::npos);
  // Digests that are paths.
  for (const char* digest : {"sha256:../../../../etc/passwd", "../../secret", "sha256:", "md5:0123", ""}) {
    Json manifest = ImageManifest({layer});
    manifest["digest"] = digest;
    WriteIndex(Json::array({manifest}));
    EXPECT_NE(ErrorOf(Options(layout_)).find("digest"), std::string::npos) << digest;
  }
  // The configuration says other layers.
  fs::remove_all(layout_);
  Json manifest = {{"config", Blob(Config({layer, layer}), "application/vnd.oci.image.config.v1+json")},
                   {"layers", Json::array({Blob(layer, "application/vnd.oci.image.layer.v1.tar")})}};
  WriteIndex(Json::array({Blob(manifest.dump(), "m")}));
  EXPECT_NE(ErrorOf(Options(layout_)).find("other layers"), std::string::npos);
  manifest["config"] = Blob(Config({File("a", "other") + kEnd}), "application/vnd.oci.image.config.v1+json");
  WriteIndex(Json::array({Blob(manifest.dump(), "m")}));
  EXPECT_NE(ErrorOf(Options(layout_)).find("uncompressed its digest"), std::string::npos);
  manifest["config"] = Blob("{}", "application/vnd.cncf.helm.config.v1+json");
  WriteIndex(Json::array({Blob(manifest.dump(), "m")}));
  EXPECT_NE(ErrorOf(Options(layout_)).find("no image of files"), std::string::npos);
  WriteIndex(Json::array());
  EXPECT_NE(ErrorOf(Options(layout_)).find("no image"), std::string::npos);
  Write(layout_ + "/index.json", std::string(100'000, '['));
  EXPECT_NE(ErrorOf(Options(layout_)).find("not the JSON"), std::string::npos);
  // An index that holds itself.
  Json self = Blob("{}", "x");
  WriteIndex(Json::array({self, self}));
  EXPECT_NE(ErrorOf(Options(layout_)).find("several images"), std::string::npos);
  // Names in layers.
  for (const char* name : {"../a", "a/../../b", ".wh...", ".wh..", ".wh.", ".wh.a/b"}) {
    WriteLayout({layer, File(name, "") + kEnd});
    const std::string error = ErrorOf(Options(layout_));
    EXPECT_TRUE(error.find("impossible name") != std::string::npos || error.find("hides nothing") != std::string::npos)
        << name << ": " << error;
  }
  WriteLayout({layer, File("x", "") + Header("x/", '5', 0) + kEnd});
  EXPECT_NE(ErrorOf(Options(layout_)).find("comes twice"), std::string::npos);
  WriteLayout({Header("a", '0', 600) + "cut"});
  EXPECT_NE(ErrorOf(Options(layout_)).find("ends too early"), std::string::npos);
  EXPECT_FALSE(Must(library_->Refresh()));
}

}  // namespace
}  // namespace mirage::testing
