"""Resources of Fluid as its users have them."""

from __future__ import annotations

ALLUXIO_S3 = """
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata:
  name: imagenet
  namespace: vision
  labels: {team: vision}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
    data.fluid.io/cache: "x"
spec:
  mounts:
    - mountPoint: s3://pictures/imagenet
      name: train
      options:
        alluxio.underfs.s3.endpoint: http://minio.storage:9000
        alluxio.underfs.s3.disable.dns.buckets: "true"
        alluxio.underfs.s3.inherit.acl: "false"
        alluxio.underfs.s3.endpoint.region: eu-west-1
      encryptOptions:
        - name: aws.accessKeyId
          valueFrom: {secretKeyRef: {name: s3-keys, key: id}}
        - name: aws.secretKey
          valueFrom: {secretKeyRef: {name: s3-keys, key: secret}}
  accessModes: [ReadOnlyMany]
  placement: Shared
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: gpu, operator: In, values: ["true"]}]
  tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: imagenet, namespace: vision}
spec:
  replicas: 4
  tieredstore:
    levels:
      - {mediumtype: MEM, path: /dev/shm, quota: 16Gi, high: "0.95", low: "0.7"}
      - {mediumtype: SSD, path: "/mnt/ssd0,/mnt/ssd1", quotaList: "300Gi,200Gi"}
  data: {replicas: 2, pin: true}
  properties:
    alluxio.user.block.size.bytes.default: 256MB
    alluxio.user.file.metadata.sync.interval: 10min
  jvmOptions: ["-Xmx16G"]
  worker:
    podMetadata: {labels: {app: cache}}
    nodeSelector: {disk: nvme}
    resources: {limits: {cpu: "8"}}
  fuse:
    args: [fuse, "--fuse-opts=kernel_cache,ro"]
    cleanPolicy: OnDemand
---
apiVersion: data.fluid.io/v1alpha1
kind: DataLoad
metadata: {name: warm, namespace: vision}
spec:
  dataset: {name: imagenet, namespace: vision}
  loadMetadata: true
  target:
    - {path: /train/, replicas: 1}
    - {path: /train/labels.csv, replicas: 2}
  policy: Cron
  schedule: "0 3 * * *"
  ttlSecondsAfterFinished: 600
  resources: {limits: {memory: 2Gi}}
"""

JINDO_OSS = """
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: hadoop}
spec:
  sharedOptions: {fs.oss.endpoint: oss-cn-beijing-internal.aliyuncs.com}
  sharedEncryptOptions:
    - name: fs.oss.accessKeyId
      valueFrom: {secretKeyRef: {name: mysecret, key: fs.oss.accessKeyId}}
    - name: fs.oss.accessKeySecret
      valueFrom: {secretKeyRef: {name: mysecret, key: fs.oss.accessKeySecret}}
  mounts:
    - {mountPoint: "oss://test-bucket/data", name: hadoop, path: "/"}
---
apiVersion: data.fluid.io/v1alpha1
kind: JindoRuntime
metadata: {name: hadoop}
spec:
  replicas: 2
  tieredstore:
    levels:
      - {mediumtype: HDD, path: /mnt/disk1, quota: 100G, high: "0.99", low: "0.8"}
  fuse: {properties: {fs.oss.read.buffer.size: "8388608"}}
"""

JUICEFS = """
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: jfsdemo}
spec:
  mounts:
    - name: pics
      mountPoint: "juicefs:///demo"
      options: {bucket: "http://minio:9000/pics", storage: minio}
      encryptOptions:
        - {name: metaurl, valueFrom: {secretKeyRef: {name: jfs-secret, key: metaurl}}}
        - {name: access-key, valueFrom: {secretKeyRef: {name: jfs-secret, key: access-key}}}
        - {name: secret-key, valueFrom: {secretKeyRef: {name: jfs-secret, key: secret-key}}}
---
apiVersion: data.fluid.io/v1alpha1
kind: JuiceFSRuntime
metadata: {name: jfsdemo}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: SSD, path: /cache, quota: 40Gi, low: "0.1"}]}
"""

THIN_MINIO = """
apiVersion: data.fluid.io/v1alpha1
kind: ThinRuntimeProfile
metadata: {name: minio-profile}
spec: {fileSystemType: fuse}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: minio-demo}
spec:
  mounts:
    - mountPoint: minio://my-first-bucket
      name: minio
      options: {minio-url: "http://minio:9000"}
      encryptOptions:
        - name: minio-access-key
          valueFrom: {secretKeyRef: {name: minio-secret, key: minio-access-key}}
        - name: minio-access-secret
          valueFrom: {secretKeyRef: {name: minio-secret, key: minio-access-secret}}
---
apiVersion: data.fluid.io/v1alpha1
kind: ThinRuntime
metadata: {name: minio-demo}
spec: {profileName: minio-profile}
"""

GCS = """
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: gcs-data}
spec:
  replicas: 1
  volumes: [{name: secret-volume, secret: {secretName: gcscreds}}]
  master: {volumeMounts: [{name: secret-volume, readOnly: true, mountPath: /var/secrets}]}
  worker: {volumeMounts: [{name: secret-volume, readOnly: true, mountPath: /var/secrets}]}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: gcs-data}
spec:
  mounts:
    - mountPoint: gs://bucket/data
      name: gcs
      options: {fs.gcs.credential.path: /var/secrets/application-credentials.json}
"""

REFERENCE = """
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: phy}
spec: {mounts: [{mountPoint: "https://mirror.example/spark/", name: spark}]}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: refdemo, namespace: ref}
spec: {mounts: [{mountPoint: "dataset://default/phy/sub", name: x, path: /}]}
"""

NESTED = """
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: two}
spec:
  mounts:
    - {mountPoint: "https://mirror.example/apache/hbase/", name: hbase, path: /}
    - {mountPoint: "https://mirror.example/apache/spark/", name: spark}
"""
