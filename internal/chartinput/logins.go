package chartinput

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"helm.sh/helm/v4/pkg/cli"
	repo "helm.sh/helm/v4/pkg/repo/v1"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// logins are the user's own logins for chart repositories and registries.
type logins struct {
	registries   credentials.Store
	repositories *repo.File
}

// readLogins reads the logins of docker login, or those of another file of its format, and of helm repo add. A file that does not exist has none,
// unless the user names it.
func readLogins(config string) (*logins, error) {
	out := &logins{repositories: repo.NewFile()}
	var err error
	if config != "" {
		if _, err := os.Stat(config); err != nil {
			return nil, fmt.Errorf("--registry-config: %w", err)
		}
		out.registries, err = credentials.NewFileStore(config)
	} else {
		out.registries, err = credentials.NewStoreFromDocker(credentials.StoreOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("reading the logins for registries: %w", err)
	}
	file, err := repo.LoadFile(cli.New().RepositoryConfig)
	switch {
	case err == nil:
		out.repositories = file
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading Helm's repositories: %w", err)
	}
	return out, nil
}

// login returns the login for a source; an empty name means that there is none.
func (l *logins) login(ctx context.Context, source string) (username, password string, err error) {
	u, err := url.Parse(source)
	if err != nil {
		return "", "", errors.New("its URL cannot be parsed")
	}
	if u.Scheme != "oci" {
		for _, r := range l.repositories.Repositories {
			if r.Username != "" && strings.TrimSuffix(r.URL, "/") == strings.TrimSuffix(source, "/") {
				return r.Username, r.Password, nil
			}
		}
		return "", "", nil
	}
	of, err := l.registries.Get(ctx, credentials.ServerAddressFromHostname(u.Host))
	if err != nil {
		// The error of a credential helper may contain anything.
		return "", "", errors.New("the login for its registry could not be read from Docker's configuration")
	}
	return of.Username, of.Password, nil
}
