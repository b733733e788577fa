package fetch

import (
	"net/netip"
	"slices"
)

// metadataServices are the addresses of cloud providers' metadata services outside of the link-local ranges.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
}

// linkLocal reports whether an address is link-local, a metadata service's, or leads to such an IPv4 address.
func linkLocal(ip netip.Addr) bool {
	return anySpelling(ip, func(ip netip.Addr) bool {
		return ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || slices.Contains(metadataServices, ip)
	})
}

// internal reports whether an address is linkLocal, or one of the machine itself.
func internal(ip netip.Addr) bool {
	return linkLocal(ip) || anySpelling(ip, func(ip netip.Addr) bool { return ip.IsLoopback() || ip.IsUnspecified() })
}

// anySpelling reports whether a condition is true for an address or for the IPv4 address that it embeds.
func anySpelling(ip netip.Addr, is func(netip.Addr) bool) bool {
	ip = ip.Unmap().WithZone("")
	return is(ip) || slices.ContainsFunc(embedded(ip), is)
}

// embedded returns the IPv4 addresses that an IPv6 address may lead to: by NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056),
// Teredo (RFC 4380), ISATAP (RFC 5214), or as an IPv4-compatible address (RFC 4291).
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	var out []netip.Addr
	switch {
	case within("64:ff9b::/96", ip), within("64:ff9b:1::/48", ip):
		out = append(out, at(12))
	case within("2002::/16", ip):
		out = append(out, at(2))
	case within("2001::/32", ip):
		out = append(out, at(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	case within("::/96", ip) && ip != netip.IPv6Unspecified() && ip != netip.IPv6Loopback():
		out = append(out, at(12))
	}
	if b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		out = append(out, at(12))
	}
	return out
}

func within(prefix string, ip netip.Addr) bool { return netip.MustParsePrefix(prefix).Contains(ip) }
