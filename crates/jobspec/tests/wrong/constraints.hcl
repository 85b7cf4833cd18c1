job "web" {
  type = "system"
  constraint {
    attribute = "attr.cpu.arch"
    value     = "arm64"
  }
  constraint {
    attribute = "${attr.cpu.arch}"
    operator  = "~="
    value     = "arm64"
  }
  constraint {
    attribute = "${meta.x}"
    regexp    = "("
  }
  constraint {
    attribute = "${attr.os.version}"
    version   = "new"
  }
  constraint {
    value = "x"
  }
  constraint {
    distinct_hosts = true
  }
  constraint {
    attribute = "${node.unique.nam}"
    value     = "x"
  }
  constraint {
    attribute = "${NOMAD_JOB_NAME}"
    is_set    = false
  }
  constraint {
    attribute = "${meta.x}"
    operator  = "="
    regexp    = "x"
  }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
