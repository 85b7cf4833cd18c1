job "restic-backup" {
  type = "batch"

  periodic {
    cron             = "@daily"
    prohibit_overlap = true
  }

  group "backup" {
    task "restic" {
      driver = "docker"

      config {
        image   = "restic/restic:0.16.4"
        command = "backup"
        args    = ["/data", "--host", "${node.unique.name}"]
        volumes = ["/srv:/data:ro"]
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/restic.env"
        env         = true
        data        = <<EOF
{{ with nomadVar "nomad/jobs/restic-backup" }}
RESTIC_PASSWORD={{ .password }}
RESTIC_REPOSITORY={{ .repository }}
{{ end }}
EOF
      }
    }
  }
}
