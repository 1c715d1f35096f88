# Security version numbers.
package framework

svn_number(svn) := svn if is_number(svn)

svn_number(svn) := to_number(svn) if {
	is_string(svn)
	regex.match(`\A-?[0-9]{1,18}\z`, svn)
}

is_svn_number(svn) if is_number(svn_number(svn))

svn_comparable(first, second) if {
	is_svn_number(first)
	is_svn_number(second)
}

svn_comparable(first, second) if {
	semver.is_valid(first)
	semver.is_valid(second)
}

# METADATA
# description: Numbers as numbers, semantic versions as such; a mixture is undefined.
svn_at_least(svn, minimum) if svn_number(svn) >= svn_number(minimum)

svn_at_least(svn, minimum) if {
	semver.is_valid(svn)
	semver.is_valid(minimum)
	semver.compare(svn, minimum) >= 0
}

same_number(first, second) if svn_number(first) == svn_number(second)
