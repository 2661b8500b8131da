#include "tests/bench/peers.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

namespace mirage::bench {
namespace {

// The same command for each version.
Peer Make(std::string name, std::string program, std::string create, const std::string& import) {
  return {std::move(name), std::move(program), std::move(create), {import, import, import}, ""};
}

// One that keeps no history: each version is a file of its own beside the others.
Peer MakeWhole(std::string name, std::string program, const std::string& import) {
  return Make(std::move(name), std::move(program), "mkdir \"$REPO\"", import);
}

}  // namespace

// All with their defaults, but for encryption, which is off where that can be chosen (restic has no such choice). What
// is not synced by the program itself is synced behind it.
std::vector<Peer> Peers(const std::string& mirage) {
  std::vector<Peer> peers;
  const std::string program = Quote(mirage) + " -q -L \"$REPO\" ";
  peers.push_back(Make("mirage", mirage, program + "init", program + "import \"$TREE\" bench"));
  peers.back().compact = program + "gc --compact";
  peers.push_back(Make("restic", "restic",
                       "RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$REPO.cache restic init -q -r \"$REPO\"",
                       "cd \"$TREE\" && RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$REPO.cache restic -q -r \"$REPO\" backup ."));
  const std::string borg = "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes "
                           "BORG_BASE_DIR=$REPO.cache borg ";
  peers.push_back(Make("borg", "borg", borg + "init -e none \"$REPO\"", "cd \"$TREE\" && " + borg + "create \"$REPO::v$N\" ."));
  peers.push_back(Make("casync", "casync", "mkdir \"$REPO\"",
                       "casync make --store=\"$REPO/store.castr\" \"$REPO/v$N.caidx\" \"$TREE\" && sync -f \"$REPO\""));
  peers.push_back(Make("bup", "bup", "BUP_DIR=$REPO bup init",
                       "export BUP_DIR=$REPO; bup index -u \"$TREE\" && bup save -q --strip -n bench \"$TREE\" && "
                       "sync -f \"$REPO\""));
  peers.push_back(MakeWhole("mksquashfs zstd-3", "mksquashfs",
                            "mksquashfs \"$TREE\" \"$REPO/v$N.squashfs\" -comp zstd -Xcompression-level 3 -no-progress -quiet && "
                            "sync -f \"$REPO\""));
  peers.push_back(MakeWhole("tar | zstd -3 -T2", "zstd",
                            "tar -C \"$TREE\" -cf - . | zstd -q -3 -T2 -o \"$REPO/v$N.tar.zst\" && sync -f \"$REPO\""));
  return peers;
}

std::vector<PeerResult> ComparePeers(const std::vector<Peer>& peers, const Versions& versions, const std::string& work,
                                     int rounds, bool keep) {
  std::vector<const Peer*> present;
  for (const Peer& peer : peers) {
    if (Output("command -v " + Quote(peer.program) + " || true").empty()) {
      fmt::print(stderr, "mirage-bench-store: {} is not installed: skipped (tests/setup.sh bench installs it)\n", peer.program);
    } else {
      present.push_back(&peer);
    }
  }
  std::vector<std::vector<Cost>> costs(3 * present.size()), compactions(present.size());
  std::vector<PeerResult> results(present.size());
  for (int version = 1; version <= 3; ++version) Run("tar -C " + Quote(versions.path(version)) + " -cf - . | cat >/dev/null");
  for (int round = 0; round < rounds; ++round) {
    for (size_t step = 0; step < present.size(); ++step) {
      // Every other round in reverse, so that nobody always comes behind the same one.
      const size_t i = round % 2 == 0 ? step : present.size() - 1 - step;
      const Peer& peer = *present[i];
      const std::string repository = fmt::format("{}/repository-{}", work, i);
      const auto environment = [&](int n) {
        return fmt::format("export REPO={} N={} TREE={}; ", Quote(repository), n, Quote(versions.path(n)));
      };
      Run("rm -rf " + Quote(repository) + " " + Quote(repository + ".cache"));
      Run(environment(1) + peer.create);
      for (int n = 1; n <= 3; ++n) {
        Run("sync -f " + Quote(work));  // nobody pays for what another left unwritten
        const auto at = static_cast<size_t>(n - 1);
        costs[3 * i + at].push_back(Meter(environment(n) + peer.import[at]));
        results[i].size_mib[at] = std::stod(Output("du -s -B1024 " + Quote(repository) + " | cut -f1")) / 1024;
      }
      if (!peer.compact.empty()) {
        compactions[i].push_back(Meter(environment(3) + peer.compact));
        results[i].compact_mib = std::stod(Output("du -s -B1024 " + Quote(repository) + " | cut -f1")) / 1024;
      }
      results[i].name = peer.name;
      if (!keep || round + 1 < rounds) Run("rm -rf " + Quote(repository) + " " + Quote(repository + ".cache"));
    }
  }
  const auto median = [](const std::vector<Cost>& rounds_of) -> Cost {
    const auto field = [&](double Cost::*member) {
      std::vector<double> values;
      for (const Cost& cost : rounds_of) values.push_back(cost.*member);
      return Median(std::move(values));
    };
    return {field(&Cost::seconds), field(&Cost::cpu_seconds), field(&Cost::peak_mib)};
  };
  for (size_t i = 0; i < present.size(); ++i) {
    for (size_t n = 0; n < 3; ++n) results[i].cost[n] = median(costs[3 * i + n]);
    if (!compactions[i].empty()) results[i].compact = median(compactions[i]);
  }
  return results;
}

void PrintPeers(const std::vector<PeerResult>& results, bool json) {
  if (json) {
    for (const PeerResult& result : results) {
      for (size_t n = 0; n < 3; ++n) {
        fmt::print("{{\"workload\":\"peers\",\"program\":\"{}\",\"version\":{},\"seconds\":{:.3f},\"cpu_seconds\":{:.3f},"
                   "\"peak_mib\":{:.1f},\"size_mib\":{:.1f}}}\n",
                   result.name, n + 1, result.cost[n].seconds, result.cost[n].cpu_seconds, result.cost[n].peak_mib,
                   result.size_mib[n]);
      }
      if (result.compact_mib > 0) {
        fmt::print("{{\"workload\":\"compact\",\"program\":\"{}\",\"seconds\":{:.3f},\"cpu_seconds\":{:.3f},"
                   "\"peak_mib\":{:.1f},\"size_mib\":{:.1f}}}\n",
                   result.name, result.compact.seconds, result.compact.cpu_seconds, result.compact.peak_mib, result.compact_mib);
      }
    }
    return;
  }
  fmt::print("{:<20}", "import of");
  for (int n = 1; n <= 3; ++n) fmt::print(" | v{}: s    cpu s    MiB", n);
  fmt::print(" | MiB on disk after v1, v2, v3\n");
  for (const PeerResult& result : results) {
    fmt::print("{:<20}", result.name);
    for (const Cost& cost : result.cost) fmt::print(" | {:>5.2f}   {:>6.2f} {:>6.0f}", cost.seconds, cost.cpu_seconds, cost.peak_mib);
    fmt::print(" | {:>6.1f} {:>6.1f} {:>6.1f}\n", result.size_mib[0], result.size_mib[1], result.size_mib[2]);
  }
  const auto mirage = std::find_if(results.begin(), results.end(), [](const auto& result) { return result.name == "mirage"; });
  if (mirage == results.end()) return;
  for (const PeerResult& result : results) {
    if (&result == &*mirage) continue;
    fmt::print("mirage / {:<18} time {:>5.2f} {:>5.2f} {:>5.2f}   cpu {:>5.2f} {:>5.2f} {:>5.2f}   size {:>5.3f} {:>5.3f} {:>5.3f}\n",
               result.name, mirage->cost[0].seconds / result.cost[0].seconds, mirage->cost[1].seconds / result.cost[1].seconds,
               mirage->cost[2].seconds / result.cost[2].seconds, mirage->cost[0].cpu_seconds / result.cost[0].cpu_seconds,
               mirage->cost[1].cpu_seconds / result.cost[1].cpu_seconds, mirage->cost[2].cpu_seconds / result.cost[2].cpu_seconds,
               mirage->size_mib[0] / result.size_mib[0], mirage->size_mib[1] / result.size_mib[1],
               mirage->size_mib[2] / result.size_mib[2]);
  }
  fmt::print("gc --compact: {:.1f} s, {:.1f} s of CPU, {:.0f} MiB; {:.1f} MiB on disk, {:.3f} of before\n", mirage->compact.seconds,
             mirage->compact.cpu_seconds, mirage->compact.peak_mib, mirage->compact_mib, mirage->compact_mib / mirage->size_mib[2]);
  for (const PeerResult& result : results) {
    if (&result == &*mirage) continue;
    fmt::print("mirage compacted / {:<18} size {:>5.3f}\n", result.name, mirage->compact_mib / result.size_mib[2]);
  }
}

}  // namespace mirage::bench
