// The order of package versions, [EPOCH:]VERSION[-RELEASE], as the two families of package managers see it.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "indexer/system_description.h"

namespace mirage {

enum class PackageFamily { kDebian, kRpm };

// deb-version(7), as dpkg --compare-versions. Any bytes are compared; what dpkg would refuse has some order too.
std::strong_ordering CompareDebianVersions(std::string_view a, std::string_view b);
// rpmvercmp, epochs first; a missing epoch is 0. Where one side has no release, releases are not compared.
std::strong_ordering CompareRpmVersions(std::string_view a, std::string_view b);

// By a distribution's name in the inspection object: "debian", "rhel", ...
PackageFamily FamilyOf(std::string_view distro);
// Of an unknown distribution by its packages' words for machines.
PackageFamily FamilyOf(const SystemDescription& system);

// "openssl<3.0.11": a name and, perhaps, which versions of it. Operators: < <= = == >= >, and dpkg's << and >>. A version
// written without an epoch is compared without epochs: who asks for what is older than 3.0.11 means 1:3.0.9 too, as Fedora and
// RHEL number it. "1:3.0.11" is compared with them, and so is "0:3.0.11".
struct PackageQuery {
  std::string name, version;
  enum Operator { kAny, kLess, kLessEqual, kEqual, kGreaterEqual, kGreater } operation = kAny;
  bool Matches(std::string_view package_version, PackageFamily family) const;
};
// EINVAL: no name, no version behind an operator, or a version that has spaces.
Result<PackageQuery> ParsePackageQuery(std::string_view text);

}  // namespace mirage
